// Allocating and freeing device and pinned host memory. Freeing never waits: pycuda calls it with Python's interpreter
// lock held, and what one would wait for may be a Python function.
#pragma once

#include "machine.hpp"

extern "C" {

static CUresult allocate(emu::Machine& m, std::size_t bytes, bool pinned, unsigned flags, std::uintptr_t* address) {
    emu::Context* context = nullptr;
    if (const CUresult status = m.current(context)) return status;
    if (bytes == 0) return INVALID_VALUE;
    emu::Device& device = m.devices[context->device];
    if (!pinned && bytes > device.total_bytes - device.used_bytes) return OUT_OF_MEMORY;
    emu::Allocation* made = m.memory.allocate(bytes);
    if (!made) return OUT_OF_MEMORY;
    made->pinned = pinned;
    made->flags = flags;
    made->context = context->handle;
    made->device = context->device;
    made->number = m.new_number(pinned ? "pinned" : "device");
    if (!pinned) device.used_bytes += bytes;
    *address = made->begin;
    return SUCCESS;
}

static CUresult free_memory(emu::Machine& m, std::uintptr_t address, bool pinned) {
    if (address == 0 || m.memory.stale(address)) return SUCCESS;
    emu::Allocation* found = m.memory.at(address);
    if (!found || found->pinned != pinned) {
        const emu::Allocation* freed = found ? nullptr : m.memory.find_freed(address);
        m.journal.violation("double free", freed ? freed->name() + " freed again" : "what was never allocated freed");
        return INVALID_VALUE;
    }
    const CUresult status = m.require(found->context, found->name());
    if (status == INVALID_CONTEXT) return status;
    const emu::Span whole{found->begin, found->bytes};
    // In a context that broke, or is gone, nothing runs any more that could use it.
    if (status == SUCCESS) m.check_races(*found, {whole, true, 0, 0, "the host, freeing it,"}, m.host, "freed in use");
    if (emu::AddressSpace::hurt(*found))
        m.journal.violation("out of bounds", "something wrote just outside " + found->name());
    if (!pinned && m.contexts.count(found->context)) m.devices[found->device].used_bytes -= found->bytes;
    m.memory.release(address);
    return status;
}

CUresult cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    return emu::call("cuMemGetInfo", [&](emu::Machine& m, auto&) -> CUresult {
        emu::Context* context = nullptr;
        if (const CUresult status = m.current(context)) return status;
        const emu::Device& device = m.devices[context->device];
        *free = device.total_bytes - device.used_bytes;
        *total = device.total_bytes;
        return SUCCESS;
    });
}

CUresult cuMemAlloc_v2(CUdeviceptr* address, std::size_t bytes) {
    return emu::call("cuMemAlloc", [&](emu::Machine& m, auto&) -> CUresult {
        if (m.capture_forbids()) return CAPTURE_UNSUPPORTED;
        std::uintptr_t made = 0;
        const CUresult status = allocate(m, bytes, false, 0, &made);
        if (status == SUCCESS) *address = made;
        return status;
    });
}

CUresult cuMemAllocPitch_v2(CUdeviceptr* address, std::size_t* pitch, std::size_t width, std::size_t rows, unsigned) {
    return emu::call("cuMemAllocPitch", [&](emu::Machine& m, auto&) -> CUresult {
        if (m.capture_forbids()) return CAPTURE_UNSUPPORTED;
        std::uintptr_t made = 0;
        *pitch = (width + 511) / 512 * 512;
        const CUresult status = allocate(m, *pitch * rows, false, 0, &made);
        if (status == SUCCESS) *address = made;
        return status;
    });
}

CUresult cuMemFree_v2(CUdeviceptr address) {
    return emu::release("cuMemFree", [&](emu::Machine& m, auto&) -> CUresult {
        if (m.capture_forbids()) return CAPTURE_UNSUPPORTED;
        return free_memory(m, address, false);
    });
}

static CUresult allocate_pinned(const char* name, void** address, std::size_t bytes, unsigned flags) {
    return emu::call(name, [&](emu::Machine& m, auto&) -> CUresult {
        if (m.capture_forbids()) return CAPTURE_UNSUPPORTED;
        std::uintptr_t made = 0;
        const CUresult status = allocate(m, bytes, true, flags, &made);
        if (status == SUCCESS) *address = reinterpret_cast<void*>(made);
        return status;
    });
}

CUresult cuMemHostAlloc(void** address, std::size_t bytes, unsigned flags) {
    return allocate_pinned("cuMemHostAlloc", address, bytes, flags);
}

CUresult cuMemAllocHost_v2(void** address, std::size_t bytes) {
    return allocate_pinned("cuMemAllocHost", address, bytes, 0);
}

CUresult cuMemFreeHost(void* address) {
    return emu::release("cuMemFreeHost", [&](emu::Machine& m, auto&) -> CUresult {
        if (m.capture_forbids()) return CAPTURE_UNSUPPORTED;
        return free_memory(m, reinterpret_cast<std::uintptr_t>(address), true);
    });
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* device, void* host, unsigned) {
    return emu::call("cuMemHostGetDevicePointer", [&](emu::Machine& m, auto&) -> CUresult {
        const auto address = reinterpret_cast<std::uintptr_t>(host);
        const emu::Allocation* found = m.memory.owns(address) ? m.memory.find(address) : nullptr;
        if (!found || !found->pinned) return INVALID_VALUE;
        *device = address;  // unified addressing
        return SUCCESS;
    });
}

CUresult cuMemHostGetFlags(unsigned* flags, void* host) {
    return emu::call("cuMemHostGetFlags", [&](emu::Machine& m, auto&) -> CUresult {
        const emu::Allocation* found = m.memory.at(reinterpret_cast<std::uintptr_t>(host));
        if (!found || !found->pinned) return INVALID_VALUE;
        *flags = found->flags;
        return SUCCESS;
    });
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr* begin, std::size_t* bytes, CUdeviceptr address) {
    return emu::call("cuMemGetAddressRange", [&](emu::Machine& m, auto&) -> CUresult {
        const emu::Allocation* found = m.memory.owns(address) ? m.memory.find(address) : nullptr;
        if (!found || address < found->begin || address >= found->end()) return NOT_FOUND;
        if (begin) *begin = found->begin;
        if (bytes) *bytes = found->bytes;
        return SUCCESS;
    });
}
}
