// What a test says to the emulation and asks it: not part of CUDA. All of it may be called without a context.
#pragma once

#include "machine.hpp"

extern "C" {

struct EmuSpan {
    std::uint64_t begin, row_bytes, rows, pitch;
    int writes;
};

static emu::Span plain(const EmuSpan& span) { return {span.begin, span.row_bytes, span.rows, span.pitch}; }

// 0 if an operation of before would not end. Afterwards there are no devices: add them.
int emu_reset(std::uint64_t seed, double max_delay_s, double patience_s) {
    emu::Machine& m = emu::machine();
    std::unique_lock<std::mutex> lock(m.mutex);
    const bool ended = m.reset(lock, patience_s);
    m.settings.seed = seed;
    m.settings.max_delay_s = max_delay_s;
    return ended;
}

void emu_add_device(const char* name, int major, int minor, std::uint64_t memory_bytes) {
    emu::Machine& m = emu::machine();
    std::lock_guard<std::mutex> lock(m.mutex);
    emu::Device device;
    device.name = name;
    device.major = major;
    device.minor = minor;
    device.total_bytes = memory_bytes;
    m.devices.push_back(device);
}

void emu_set_duration(const char* kind, double seconds) {
    emu::Machine& m = emu::machine();
    std::lock_guard<std::mutex> lock(m.mutex);
    m.settings.durations_s[kind] = seconds;
}

void emu_fail_call(std::uint64_t n, const char* name, int status) {
    emu::Machine& m = emu::machine();
    std::lock_guard<std::mutex> lock(m.mutex);
    m.call_fault = {name, n, status};
}

void emu_fail_operation(std::uint64_t n, const char* kind, int status) {
    emu::Machine& m = emu::machine();
    std::lock_guard<std::mutex> lock(m.mutex);
    m.operation_fault = {kind, n, status};
}

void emu_name_stream(Handle handle, const char* name) {
    emu::Machine& m = emu::machine();
    std::lock_guard<std::mutex> lock(m.mutex);
    const auto found = m.streams.find(handle);
    if (found != m.streams.end()) found->second->name = name;
}

void emu_host_access(const EmuSpan* span) {
    emu::Machine& m = emu::machine();
    std::lock_guard<std::mutex> lock(m.mutex);
    m.host_access(plain(*span), span->writes);
}

int emu_is_capturing(Handle handle) {
    emu::Machine& m = emu::machine();
    std::lock_guard<std::mutex> lock(m.mutex);
    const auto found = m.streams.find(handle);
    return found != m.streams.end() && found->second->capture != nullptr;
}

int emu_context_depth() {
    emu::Machine& m = emu::machine();
    std::lock_guard<std::mutex> lock(m.mutex);
    return static_cast<int>(m.context_stack().size());
}

// What a kernel, or an engine's execution, would be: counted as a launch. The function returns a status.
int emu_enqueue(
    Handle handle, int (*function)(std::uint64_t), std::uint64_t data, const char* label, const EmuSpan* spans,
    std::size_t count) {
    return emu::call("cuLaunchKernel", [&](emu::Machine& m, auto&) -> CUresult {
        emu::StreamPtr stream;
        if (const CUresult status = m.find_stream(handle, stream)) return status;
        emu::Operation operation;
        operation.kind = "compute";
        operation.label = label;
        for (std::size_t i = 0; i < count; ++i)
            operation.touches.push_back({plain(spans[i]), spans[i].writes != 0, MEMORY_UNIFIED});
        operation.work = [function, data](const emu::Pace&) { return function(data); };
        return m.submit(stream, std::move(operation));
    });
}

static std::string leaks(emu::Machine& m) {
    std::vector<std::string> items;
    const auto leak = [&](const char* kind, const std::string& what, Handle context) {
        items.push_back(
            "{\"kind\":" + emu::quoted(kind) + ",\"what\":" +
            emu::quoted(what + (context && !m.contexts.count(context) ? ", lost with its context" : "")) + "}");
    };
    for (const auto& [_, context] : m.contexts)
        leak("context", (context.primary ? "primary context of device " : "context of device ") +
                            std::to_string(context.device) +
                            (context.primary ? ", retained " + std::to_string(m.devices[context.device].retained) +
                                                   " times" : ""), 0);
    for (const auto& [_, stream] : m.streams) leak("stream", stream->name, stream->context);
    for (const auto& [_, event] : m.events) leak("event", "an event", event.context);
    for (const auto& [_, allocation] : m.memory.live())
        leak(allocation.pinned ? "pinned" : "device", allocation.name(), allocation.context);
    for (std::size_t i = 0; i < m.graphs.size(); ++i) leak("graph", "a graph", 0);
    for (std::size_t i = 0; i < m.executables.size(); ++i) leak("executable graph", "an executable graph", 0);
    return emu::joined(items);
}

// JSON; valid until this thread asks again.
const char* emu_report(const char* what) {
    static thread_local std::string answer;
    emu::Machine& m = emu::machine();
    std::lock_guard<std::mutex> lock(m.mutex);
    const std::string kind = what;
    if (kind == "violations") {
        for (auto& [_, allocation] : m.memory.live())
            if (emu::AddressSpace::hurt(allocation))
                m.journal.violation("out of bounds", "something wrote just outside " + allocation.name());
        answer = m.journal.violations();
    } else if (kind == "leaks") {
        answer = leaks(m);
    } else if (kind == "calls") {
        answer = m.journal.calls();
    } else {
        answer = m.journal.trace();
    }
    return answer.c_str();
}
}
