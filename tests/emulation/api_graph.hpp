// Stream capture and graphs. A graph is a list of operations: what one stream would have done, in that order.
#pragma once

#include "machine.hpp"

namespace emu {

// The legacy NULL stream and blocking streams wait for each other, which a capture cannot express: using one of them
// while the other is captured breaks the capture.
inline bool Machine::implicit_capture(const Stream& used) {
    const auto found = contexts.find(used.context);
    if (found == contexts.end() || found->second.legacy.get() != &used) return false;
    for (const auto& [_, other] : streams)
        if (other->capture && other->context == used.context && other->blocking())
            return other->capture->broken = true;
    return false;
}

// Calls that might wait for the device are forbidden while anybody captures in the global mode, or this thread in the
// thread-local one; and they break that capture.
inline bool Machine::capture_forbids() {
    for (const auto& [_, stream] : streams) {
        if (!stream->capture || stream->capture->mode == CAPTURE_RELAXED) continue;
        if (stream->capture->mode == CAPTURE_THREAD_LOCAL && stream->capture->thread != std::this_thread::get_id())
            continue;
        return stream->capture->broken = true;
    }
    return false;
}

inline CUresult instantiate(Handle* executable, Handle graph) {
    return call("cuGraphInstantiate", [&](Machine& m, auto&) -> CUresult {
        if (m.stale(graph)) return DEINITIALIZED;
        const auto found = m.graphs.find(graph);
        if (found == m.graphs.end()) return INVALID_VALUE;
        *executable = m.new_handle();
        m.executables[*executable] = found->second;
        return SUCCESS;
    });
}

inline CUresult destroy_graph(const char* name, std::map<Handle, Graph>& among, Handle handle) {
    return release(name, [&](Machine& m, auto&) -> CUresult {
        if (m.stale(handle)) return SUCCESS;
        if (among.erase(handle)) return SUCCESS;
        m.journal.violation("double free", "a graph destroyed twice");
        return INVALID_VALUE;
    });
}

}  // namespace emu

extern "C" {

CUresult cuStreamBeginCapture_v2(Handle handle, int mode) {
    return emu::call("cuStreamBeginCapture", [&](emu::Machine& m, auto&) -> CUresult {
        emu::StreamPtr stream;
        if (handle == 0 || handle == LEGACY_STREAM) return CAPTURE_UNSUPPORTED;
        if (const CUresult status = m.find_stream(handle, stream)) return status;
        if (stream->capture) return ILLEGAL_STATE;
        stream->capture = std::make_unique<emu::Capture>();
        stream->capture->number = m.new_number("capture");
        stream->capture->mode = static_cast<CaptureMode>(mode);
        stream->capture->thread = std::this_thread::get_id();
        return SUCCESS;
    });
}

CUresult cuStreamEndCapture(Handle handle, Handle* graph) {
    return emu::call("cuStreamEndCapture", [&](emu::Machine& m, auto&) -> CUresult {
        emu::StreamPtr stream;
        *graph = 0;
        if (const CUresult status = m.find_stream(handle, stream)) return status;
        if (!stream->capture) return ILLEGAL_STATE;
        if (stream->capture->mode != CAPTURE_RELAXED && stream->capture->thread != std::this_thread::get_id())
            return CAPTURE_WRONG_THREAD;
        const auto ended = std::move(stream->capture);
        if (ended->broken) return CAPTURE_INVALIDATED;
        *graph = m.new_handle();
        m.graphs[*graph].operations = std::move(ended->operations);
        return SUCCESS;
    });
}

CUresult cuStreamIsCapturing(Handle handle, int* status) {
    return emu::call("cuStreamIsCapturing", [&](emu::Machine& m, auto&) -> CUresult {
        emu::StreamPtr stream;
        if (const CUresult found = m.find_stream(handle, stream)) return found;
        *status = !stream->capture ? CAPTURE_NONE : stream->capture->broken ? CAPTURE_BROKEN : CAPTURE_ACTIVE;
        return SUCCESS;
    });
}

CUresult cuGraphInstantiateWithFlags(Handle* executable, Handle graph, unsigned long long) {
    return emu::instantiate(executable, graph);
}
CUresult cuGraphInstantiateWithParams(Handle* executable, Handle graph, void*) {
    return emu::instantiate(executable, graph);
}

CUresult cuGraphGetNodes(Handle graph, void** nodes, std::size_t* count) {
    return emu::call("cuGraphGetNodes", [&](emu::Machine& m, auto&) -> CUresult {
        const auto found = m.graphs.find(graph);
        if (found == m.graphs.end()) return INVALID_VALUE;
        if (nodes) return NOT_SUPPORTED;
        *count = found->second.operations.size();
        return SUCCESS;
    });
}

CUresult cuGraphUpload(Handle, Handle) {
    return emu::call("cuGraphUpload", [](emu::Machine&, auto&) { return SUCCESS; });
}

CUresult cuGraphLaunch(Handle executable, Handle handle) {
    return emu::call("cuGraphLaunch", [&](emu::Machine& m, auto&) -> CUresult {
        emu::StreamPtr stream;
        if (const CUresult status = m.find_stream(handle, stream)) return status;
        if (m.stale(executable)) return DEINITIALIZED;
        const auto found = m.executables.find(executable);
        if (found == m.executables.end()) {
            m.journal.violation("dead handle", "a graph that was destroyed launched");
            return INVALID_VALUE;
        }
        emu::Graph& graph = found->second;
        for (emu::Operation operation : graph.operations) {
            if (!stream->capture && graph.last) operation.waits.push_back(graph.last);
            if (!stream->capture) operation.clock = graph.clock;
            if (const CUresult status = m.submit(stream, std::move(operation))) return status;
        }
        if (!stream->capture) {
            graph.last = stream->last;
            graph.clock = stream->clock;
        }
        return SUCCESS;
    });
}

CUresult cuGraphExecDestroy(Handle executable) {
    return emu::destroy_graph("cuGraphExecDestroy", emu::machine().executables, executable);
}
CUresult cuGraphDestroy(Handle graph) { return emu::destroy_graph("cuGraphDestroy", emu::machine().graphs, graph); }
}
