// cuInit, devices, contexts.
#pragma once

#include <cstdio>

#include "machine.hpp"

extern "C" {

CUresult cuInit(unsigned) {
    emu::Machine& m = emu::machine();
    std::lock_guard<std::mutex> lock(m.mutex);
    m.initialised = true;
    return m.enter("cuInit");
}

CUresult cuDriverGetVersion(int* version) {
    *version = 13000;
    return SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
    return emu::call("cuDeviceGetCount", [&](emu::Machine& m, auto&) {
        *count = static_cast<int>(m.devices.size());
        return SUCCESS;
    });
}

static bool known(const emu::Machine& m, int device) {
    return device >= 0 && device < static_cast<int>(m.devices.size());
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    return emu::call("cuDeviceGet", [&](emu::Machine& m, auto&) -> CUresult {
        if (!known(m, ordinal)) return INVALID_DEVICE;
        *device = ordinal;
        return SUCCESS;
    });
}

CUresult cuDeviceGetName(char* name, int size, CUdevice device) {
    return emu::call("cuDeviceGetName", [&](emu::Machine& m, auto&) -> CUresult {
        if (!known(m, device)) return INVALID_DEVICE;
        std::snprintf(name, static_cast<std::size_t>(size), "%s", m.devices[device].name.c_str());
        return SUCCESS;
    });
}

CUresult cuDeviceTotalMem_v2(std::size_t* bytes, CUdevice device) {
    return emu::call("cuDeviceTotalMem", [&](emu::Machine& m, auto&) -> CUresult {
        if (!known(m, device)) return INVALID_DEVICE;
        *bytes = m.devices[device].total_bytes;
        return SUCCESS;
    });
}

CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
    return emu::call("cuDeviceComputeCapability", [&](emu::Machine& m, auto&) -> CUresult {
        if (!known(m, device)) return INVALID_DEVICE;
        *major = m.devices[device].major;
        *minor = m.devices[device].minor;
        return SUCCESS;
    });
}

CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
    return emu::call("cuDeviceGetAttribute", [&](emu::Machine& m, auto&) -> CUresult {
        if (!known(m, device)) return INVALID_DEVICE;
        static const std::map<int, int> others = {
            {1, 1024},  // threads a block
            {10, 32},   // warp size
            {16, 16},   // multiprocessors
            {19, 1},    // can map host memory
            {31, 1},    // concurrent kernels
            {40, 2},    // copy engines
            {41, 1},    // unified addressing
        };
        if (attribute == 75) return *value = m.devices[device].major, SUCCESS;
        if (attribute == 76) return *value = m.devices[device].minor, SUCCESS;
        const auto found = others.find(attribute);
        *value = found == others.end() ? 0 : found->second;
        return SUCCESS;
    });
}

CUresult cuDevicePrimaryCtxRetain(Handle* context, CUdevice device) {
    return emu::call("cuDevicePrimaryCtxRetain", [&](emu::Machine& m, auto&) -> CUresult {
        if (!known(m, device)) return INVALID_DEVICE;
        emu::Device& d = m.devices[device];
        if (d.retained++ == 0) d.primary = m.make_context(device, true);
        *context = d.primary;
        return SUCCESS;
    });
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    return emu::release("cuDevicePrimaryCtxRelease", [&](emu::Machine& m, auto&) -> CUresult {
        if (!known(m, device)) return INVALID_DEVICE;
        auto& stack = m.context_stack();
        // pycuda puts the context on the stack first; an object of it that outlived a reset is recognised by that.
        if (!stack.empty() && m.stale(stack.back())) return stack.pop_back(), SUCCESS;
        emu::Device& d = m.devices[device];
        if (d.retained == 0 && m.void_retains[device] > 0) return --m.void_retains[device], SUCCESS;
        if (d.retained == 0) {
            m.journal.violation("double free", "a primary context released more often than it was retained");
            return INVALID_CONTEXT;
        }
        if (--d.retained == 0) m.destroy_context(std::exchange(d.primary, 0));
        return SUCCESS;
    });
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
    return emu::call("cuDevicePrimaryCtxGetState", [&](emu::Machine& m, auto&) -> CUresult {
        if (!known(m, device)) return INVALID_DEVICE;
        *flags = 0;
        *active = m.devices[device].retained > 0;
        return SUCCESS;
    });
}

static CUresult create_context(Handle* context, CUdevice device) {
    return emu::call("cuCtxCreate", [&](emu::Machine& m, auto&) -> CUresult {
        if (!known(m, device)) return INVALID_DEVICE;
        *context = m.make_context(device, false);
        m.context_stack().push_back(*context);
        return SUCCESS;
    });
}

CUresult cuCtxCreate_v2(Handle* context, unsigned, CUdevice device) { return create_context(context, device); }
CUresult cuCtxCreate_v3(Handle* context, void*, int, unsigned, CUdevice device) {
    return create_context(context, device);
}
CUresult cuCtxCreate_v4(Handle* context, void*, unsigned, CUdevice device) { return create_context(context, device); }

static CUresult destroy_context(const char* name, Handle context) {
    return emu::release(name, [&](emu::Machine& m, auto&) -> CUresult {
        if (m.stale(context)) return SUCCESS;
        const auto found = m.contexts.find(context);
        if (found == m.contexts.end()) {
            m.journal.violation("double free", "a context destroyed twice");
            return INVALID_CONTEXT;
        }
        if (found->second.primary) return INVALID_CONTEXT;  // it can only be released
        auto& stack = m.context_stack();
        if (!stack.empty() && stack.back() == context) stack.pop_back();
        m.destroy_context(context);
        return SUCCESS;
    });
}

CUresult cuCtxDestroy_v2(Handle context) { return destroy_context("cuCtxDestroy", context); }
CUresult cuCtxDetach(Handle context) { return destroy_context("cuCtxDetach", context); }

CUresult cuCtxPushCurrent_v2(Handle context) {
    return emu::call("cuCtxPushCurrent", [&](emu::Machine& m, auto&) -> CUresult {
        if (!m.stale(context) && !m.contexts.count(context)) {
            m.journal.violation("wrong context", "a context that was destroyed, or never was, made current");
            return INVALID_CONTEXT;
        }
        m.context_stack().push_back(context);
        return SUCCESS;
    });
}

// pycuda pops what a test left current, however late; without a past it is an error as ever.
static std::vector<Handle>& this_thread_contexts() {
    return emu::this_thread.contexts.empty() ? emu::this_thread.past : emu::this_thread.contexts;
}

CUresult cuCtxPopCurrent_v2(Handle* context) {
    return emu::release("cuCtxPopCurrent", [&](emu::Machine& m, auto&) -> CUresult {
        m.context_stack();  // moves what was before a reset into the past
        auto& stack = this_thread_contexts();
        if (stack.empty()) return INVALID_CONTEXT;
        if (context) *context = stack.back();
        stack.pop_back();
        return SUCCESS;
    });
}

CUresult cuCtxSetCurrent(Handle context) {
    return emu::call("cuCtxSetCurrent", [&](emu::Machine& m, auto&) -> CUresult {
        auto& stack = m.context_stack();
        if (context && !m.stale(context) && !m.contexts.count(context)) return INVALID_CONTEXT;
        if (!stack.empty()) stack.pop_back();
        if (context) stack.push_back(context);
        return SUCCESS;
    });
}

CUresult cuCtxGetCurrent(Handle* context) {
    return emu::call("cuCtxGetCurrent", [&](emu::Machine& m, auto&) {
        const auto& stack = m.context_stack();
        *context = stack.empty() ? 0 : stack.back();
        return SUCCESS;
    });
}

CUresult cuCtxGetDevice(CUdevice* device) {
    return emu::call("cuCtxGetDevice", [&](emu::Machine& m, auto&) -> CUresult {
        emu::Context* context = nullptr;
        const CUresult status = m.current(context);
        if (context) *device = context->device;
        return status;
    });
}

CUresult cuCtxGetApiVersion(Handle, unsigned* version) {
    *version = 3020;
    return SUCCESS;
}

CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    return emu::call("cuCtxGetStreamPriorityRange", [&](emu::Machine&, auto&) {
        if (least) *least = 0;
        if (greatest) *greatest = 0;
        return SUCCESS;
    });
}

CUresult cuCtxSynchronize() {
    return emu::call("cuCtxSynchronize", [&](emu::Machine& m, auto& lock) -> CUresult {
        emu::Context* context = nullptr;
        if (const CUresult status = m.current(context)) return status;
        const Handle handle = context->handle;
        std::vector<emu::StreamPtr> all;
        if (context->legacy) all.push_back(context->legacy);
        for (const auto& [_, stream] : m.streams) {
            if (stream->context != handle) continue;
            if (stream->capture) return stream->capture->broken = true, CAPTURE_UNSUPPORTED;
            all.push_back(stream);
        }
        for (const auto& stream : all) {
            const emu::Clock clock = stream->clock;
            if (const CUresult status = m.await(lock, stream->last)) return status;
            m.host.join(clock);
        }
        return m.current(context);
    });
}
}
