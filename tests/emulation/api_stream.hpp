// Streams and events.
#pragma once

#include "machine.hpp"

namespace emu {

inline CUresult find_event(Machine& m, Handle handle, Event*& out) {
    if (m.stale(handle)) return DEINITIALIZED;
    const auto found = m.events.find(handle);
    if (found == m.events.end()) {
        m.journal.violation("dead handle", "an event that was destroyed, or never was");
        return INVALID_HANDLE;
    }
    out = &found->second;
    Context* context = nullptr;
    return m.current(context);
}

// The host learns that everything up to `completion`, which `clock` stands for, is over; or does not wait for it.
inline CUresult wait_for(
    Machine& m, std::unique_lock<std::mutex>& lock, CompletionPtr completion, Clock clock, bool query) {
    if (query && completion && !completion->done) return NOT_READY;
    if (const CUresult status = m.await(lock, completion)) return status;
    m.host.join(clock);
    Context* context = nullptr;
    return m.current(context);
}

inline CUresult wait_for_stream(const char* name, Handle handle, bool query) {
    return call(name, [&](Machine& m, auto& lock) -> CUresult {
        StreamPtr stream;
        if (const CUresult status = m.find_stream(handle, stream)) return status;
        if (stream->capture) return stream->capture->broken = true, CAPTURE_UNSUPPORTED;
        if (m.capture_forbids()) return CAPTURE_UNSUPPORTED;
        return wait_for(m, lock, stream->last, stream->clock, query);
    });
}

inline CUresult wait_for_event(const char* name, Handle handle, bool query) {
    return call(name, [&](Machine& m, auto& lock) -> CUresult {
        Event* event = nullptr;
        if (const CUresult status = find_event(m, handle, event)) return status;
        if (event->capture) return CAPTURED_EVENT;
        if (m.capture_forbids()) return CAPTURE_UNSUPPORTED;
        return wait_for(m, lock, event->recorded, event->clock, query);
    });
}

inline CUresult record(Handle event_handle, Handle stream_handle) {
    return call("cuEventRecord", [&](Machine& m, auto&) -> CUresult {
        Event* event = nullptr;
        StreamPtr stream;
        if (const CUresult status = find_event(m, event_handle, event)) return status;
        if (const CUresult status = m.find_stream(stream_handle, stream)) return status;
        if (event->context != stream->context) {
            m.journal.violation("wrong context", "an event recorded on a stream of another context");
            return INVALID_HANDLE;
        }
        if (stream->capture) {
            event->capture = stream->capture->number;
            return SUCCESS;
        }
        Operation operation;
        operation.kind = "record";
        if (const CUresult status = m.submit(stream, std::move(operation))) return status;
        event->capture = 0;
        event->recorded = stream->last;
        event->clock = stream->clock;
        return SUCCESS;
    });
}

inline CUresult elapsed(float* milliseconds, Handle from, Handle to) {
    return call("cuEventElapsedTime", [&](Machine& m, auto&) -> CUresult {
        Event *first = nullptr, *second = nullptr;
        if (const CUresult status = find_event(m, from, first)) return status;
        if (const CUresult status = find_event(m, to, second)) return status;
        for (const Event* event : {first, second})
            if ((event->flags & EVENT_DISABLE_TIMING) || !event->recorded || event->capture) return INVALID_HANDLE;
        if (!first->recorded->done || !second->recorded->done) return NOT_READY;
        *milliseconds = static_cast<float>((second->recorded->stop_s - first->recorded->stop_s) * 1e3);
        return SUCCESS;
    });
}

inline CUresult create_stream(const char* name, Handle* stream, unsigned flags) {
    return call(name, [&](Machine& m, auto&) -> CUresult {
        Context* context = nullptr;
        if (const CUresult status = m.current(context)) return status;
        const StreamPtr made =
            m.make_stream(context->handle, flags, "stream " + std::to_string(m.new_number("stream")));
        m.streams[made->handle] = made;
        *stream = made->handle;
        return SUCCESS;
    });
}

// Of a stream or event that must be known; those of a destroyed context are gone, but not an error twice.
template <class Things>
CUresult destroyable(Machine& m, Things& things, Handle handle, const char* what) {
    if (things.count(handle)) return SUCCESS;
    m.journal.violation("double free", std::string(what) + " destroyed twice");
    return INVALID_HANDLE;
}

}  // namespace emu

extern "C" {

CUresult cuStreamCreate(Handle* stream, unsigned flags) { return emu::create_stream("cuStreamCreate", stream, flags); }
CUresult cuStreamCreateWithPriority(Handle* stream, unsigned flags, int) {
    return emu::create_stream("cuStreamCreateWithPriority", stream, flags);
}

CUresult cuStreamDestroy_v2(Handle handle) {
    return emu::release("cuStreamDestroy", [&](emu::Machine& m, auto&) -> CUresult {
        if (m.stale(handle)) return SUCCESS;
        if (const CUresult status = emu::destroyable(m, m.streams, handle, "a stream")) return status;
        const emu::StreamPtr stream = m.streams[handle];
        const CUresult status = m.require(stream->context, stream->name);
        if (status == INVALID_CONTEXT) return status;
        m.close(*stream);  // what is in it still runs
        m.streams.erase(handle);
        return status;
    });
}

CUresult cuStreamGetFlags(Handle handle, unsigned* flags) {
    return emu::call("cuStreamGetFlags", [&](emu::Machine& m, auto&) -> CUresult {
        emu::StreamPtr stream;
        if (const CUresult status = m.find_stream(handle, stream)) return status;
        *flags = stream->flags;
        return SUCCESS;
    });
}

CUresult cuStreamGetCtx(Handle handle, Handle* context) {
    return emu::call("cuStreamGetCtx", [&](emu::Machine& m, auto&) -> CUresult {
        emu::StreamPtr stream;
        if (const CUresult status = m.find_stream(handle, stream)) return status;
        *context = stream->context;
        return SUCCESS;
    });
}

CUresult cuStreamGetPriority(Handle, int* priority) { return *priority = 0, SUCCESS; }

CUresult cuStreamSynchronize(Handle stream) { return emu::wait_for_stream("cuStreamSynchronize", stream, false); }
CUresult cuStreamQuery(Handle stream) { return emu::wait_for_stream("cuStreamQuery", stream, true); }
CUresult cuEventSynchronize(Handle event) { return emu::wait_for_event("cuEventSynchronize", event, false); }
CUresult cuEventQuery(Handle event) { return emu::wait_for_event("cuEventQuery", event, true); }

CUresult cuStreamWaitEvent(Handle stream_handle, Handle event_handle, unsigned) {
    return emu::call("cuStreamWaitEvent", [&](emu::Machine& m, auto&) -> CUresult {
        emu::Event* event = nullptr;
        emu::StreamPtr stream;
        if (const CUresult status = emu::find_event(m, event_handle, event)) return status;
        if (const CUresult status = m.find_stream(stream_handle, stream)) return status;
        if (stream->capture) {
            if (event->capture == stream->capture->number) return SUCCESS;
            return stream->capture->broken = true, CAPTURE_ISOLATION;
        }
        if (event->capture) return NOT_SUPPORTED;  // would draw this stream into the capture
        if (!event->recorded) return SUCCESS;
        emu::Operation operation;
        operation.kind = "wait";
        operation.waits.push_back(event->recorded);
        operation.clock = event->clock;
        return m.submit(stream, std::move(operation));
    });
}

CUresult cuLaunchHostFunc(Handle handle, void (*function)(void*), void* data) {
    return emu::call("cuLaunchHostFunc", [&](emu::Machine& m, auto&) -> CUresult {
        emu::StreamPtr stream;
        if (const CUresult status = m.find_stream(handle, stream)) return status;
        emu::Operation operation;
        operation.kind = "host";
        operation.work = [function, data](const emu::Pace&) { return function(data), SUCCESS; };
        return m.submit(stream, std::move(operation));
    });
}

CUresult cuEventCreate(Handle* event, unsigned flags) {
    return emu::call("cuEventCreate", [&](emu::Machine& m, auto&) -> CUresult {
        emu::Context* context = nullptr;
        if (const CUresult status = m.current(context)) return status;
        emu::Event made;
        made.handle = m.new_handle();
        made.context = context->handle;
        made.flags = flags;
        m.events[made.handle] = made;
        *event = made.handle;
        return SUCCESS;
    });
}

CUresult cuEventDestroy_v2(Handle handle) {
    return emu::release("cuEventDestroy", [&](emu::Machine& m, auto&) -> CUresult {
        if (m.stale(handle)) return SUCCESS;
        if (const CUresult status = emu::destroyable(m, m.events, handle, "an event")) return status;
        const CUresult status = m.require(m.events[handle].context, "an event");
        if (status != INVALID_CONTEXT) m.events.erase(handle);
        return status;
    });
}

CUresult cuEventRecord(Handle event, Handle stream) { return emu::record(event, stream); }
CUresult cuEventRecordWithFlags(Handle event, Handle stream, unsigned) { return emu::record(event, stream); }
CUresult cuEventElapsedTime(float* ms, Handle from, Handle to) { return emu::elapsed(ms, from, to); }
CUresult cuEventElapsedTime_v2(float* ms, Handle from, Handle to) { return emu::elapsed(ms, from, to); }
}
