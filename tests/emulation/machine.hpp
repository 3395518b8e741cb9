// The emulated computer: devices, contexts, everything made on them, and one lock around all of it.
//
// No call holds the lock while it waits or while foreign code runs: a binding may hold Python's interpreter lock in a
// call, and an operation may need that lock to finish.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "journal.hpp"
#include "stream.hpp"

namespace emu {

inline double now_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Device {
    std::string name = "Emulated GPU";
    int major = 8, minor = 6;
    std::size_t total_bytes = std::size_t{1} << 30;
    std::size_t used_bytes = 0;
    Handle primary = 0;
    unsigned retained = 0;
};

struct Context {
    Handle handle = 0;
    int device = 0;
    bool primary = false;
    StreamPtr legacy;  // the NULL stream, made when it is first used
    CUresult broken = SUCCESS;
};

// The n-th of the calls (operations) from now on fails; those of `name` alone, if it is not empty.
struct Fault {
    std::string name;
    std::uint64_t left = 0;
    CUresult status = SUCCESS;
    CUresult strikes(const std::string& what) {
        if (left == 0 || (!name.empty() && name != what)) return SUCCESS;
        return --left == 0 ? status : SUCCESS;
    }
};

struct Settings {
    std::uint64_t seed = 0;
    double max_delay_s = 0;
    std::map<std::string, double> durations_s;  // by kind of operation
};

struct ThreadState {
    std::uint64_t epoch = 0;
    std::vector<Handle> contexts;
    std::vector<Handle> past;  // what was current, and lived, when the machine was reset
    const Operation* inside = nullptr;  // the operation that this thread of the emulation runs just now
};
inline thread_local ThreadState this_thread;

class Machine {
public:
    std::mutex mutex;
    std::condition_variable changed;

    std::vector<Device> devices = std::vector<Device>(2);
    Settings settings;
    Journal journal;
    AddressSpace memory;
    std::map<Handle, Context> contexts;
    std::map<Handle, StreamPtr> streams;
    std::map<Handle, Event> events;
    std::map<Handle, Graph> graphs, executables;
    Fault call_fault, operation_fault;
    Clock host;  // one for all host threads: how they wait for each other, no driver can see
    std::uint64_t epoch = 1;
    // What lived when the machine was reset may still be popped and released.
    std::set<Handle> void_contexts;
    std::map<int, unsigned> void_retains;
    bool initialised = false;

    // --- calls

    // Whether a call may go on: counts it, and lets it fail where a test wants that.
    CUresult enter(const char* name) {
        if (!initialised) return NOT_INITIALIZED;
        if (this_thread.inside) {
            journal.violation("call in callback", std::string(name) + " called by " + this_thread.inside->name);
            return NOT_PERMITTED;
        }
        journal.called(name);
        return call_fault.strikes(name);
    }

    Handle new_handle() { return next_handle_ += 0x100; }
    std::uint64_t new_number(const std::string& kind) { return ++numbers_[kind]; }

    // Of something that was made before the last reset: nobody cares any more.
    bool stale(Handle handle) const { return handle >= 0x10000 && handle <= stale_handles_; }

    // --- contexts

    std::vector<Handle>& context_stack() {
        if (this_thread.epoch != epoch) {
            this_thread.epoch = epoch;
            this_thread.past.clear();
            for (const Handle handle : std::exchange(this_thread.contexts, {}))
                if (void_contexts.count(handle)) this_thread.past.push_back(handle);
        }
        return this_thread.contexts;
    }

    CUresult current(Context*& out) {
        const auto& stack = context_stack();
        if (stack.empty() && !this_thread.past.empty()) return DEINITIALIZED;
        if (stack.empty()) {
            journal.violation("wrong context", "a call that needs a context, in a thread that has none");
            return INVALID_CONTEXT;
        }
        if (stale(stack.back())) return DEINITIALIZED;
        const auto found = contexts.find(stack.back());
        if (found == contexts.end()) {
            journal.violation("wrong context", "a call in a context that was destroyed");
            return CONTEXT_IS_DESTROYED;
        }
        out = &found->second;
        return out->broken;
    }

    // That `owner`, which made a thing, is current.
    CUresult require(Handle owner, const std::string& thing) {
        Context* context = nullptr;
        const CUresult status = current(context);
        if (!context) return status;
        if (context->handle == owner) return status;
        const bool alive = contexts.count(owner);
        journal.violation("wrong context", thing + (alive ? " used while another context is current"
                                                          : " used after its context was destroyed"));
        return alive ? INVALID_CONTEXT : CONTEXT_IS_DESTROYED;
    }

    Handle make_context(int device, bool primary) {
        Context made;
        made.handle = new_handle();
        made.device = device;
        made.primary = primary;
        contexts[made.handle] = made;
        return made.handle;
    }

    // What is left in it is lost, and stays in the list of leaks.
    void destroy_context(Handle handle) {
        const auto found = contexts.find(handle);
        devices[found->second.device].used_bytes = used_elsewhere(found->second);
        if (found->second.legacy) close(*found->second.legacy);
        contexts.erase(found);
    }

    // --- streams

    StreamPtr make_stream(Handle context, unsigned flags, const std::string& name) {
        auto made = std::make_shared<Stream>();
        made->handle = new_handle();
        made->context = context;
        made->flags = flags;
        made->actor = ++actors_;
        made->name = name;
        return made;
    }

    CUresult find_stream(Handle handle, StreamPtr& out) {
        if (handle == 0 || handle == LEGACY_STREAM) {
            Context* context = nullptr;
            const CUresult status = current(context);
            if (status != SUCCESS) return status;
            if (!context->legacy) context->legacy = make_stream(context->handle, 0, "NULL stream");
            out = context->legacy;
            return SUCCESS;
        }
        if (stale(handle)) return DEINITIALIZED;
        const auto found = streams.find(handle);
        if (found == streams.end()) {
            journal.violation("dead handle", "a stream that was destroyed, or never was");
            return INVALID_HANDLE;
        }
        out = found->second;
        return require(out->context, out->name);
    }

    void close(Stream& stream) {
        stream.closing = true;
        changed.notify_all();
    }

    // --- operations

    CUresult submit(const StreamPtr& stream, Operation operation, bool may_be_pageable = false);
    CUresult check(const Operation& operation, bool may_be_pageable);
    void host_access(const Span& span, bool writes);
    void check_races(Allocation& allocation, Access access, const Clock& clock, const char* kind = "race");
    bool implicit_capture(const Stream& legacy);
    bool capture_forbids();

    // Until it is over. DEINITIALIZED if the machine was reset meanwhile.
    CUresult await(std::unique_lock<std::mutex>& lock, const CompletionPtr& completion) {
        const auto began = epoch;
        changed.wait(lock, [&] { return epoch != began || !completion || completion->done; });
        return epoch == began ? SUCCESS : DEINITIALIZED;
    }

    bool reset(std::unique_lock<std::mutex>& lock, double patience_s);

private:
    CUresult check_touch(const Operation& operation, const Touch& touch, bool may_be_pageable);
    void wait_for_the_others(Stream& stream, Operation& operation);
    void schedule(const StreamPtr& stream, Operation operation);
    void work(const StreamPtr& stream);
    void run(std::unique_lock<std::mutex>& lock, Stream& stream, Operation& operation);

    std::size_t used_elsewhere(const Context& context) {
        std::size_t used = 0;
        for (const auto& [_, allocation] : memory.live())
            if (!allocation.pinned && allocation.device == context.device && allocation.context != context.handle &&
                contexts.count(allocation.context))
                used += allocation.bytes;
        return used;
    }

    Handle next_handle_ = 0x10000, stale_handles_ = 0;
    std::map<std::string, std::uint64_t> numbers_;
    std::size_t actors_ = 0;  // 0 is the host
    std::uint64_t operations_ = 0;
    std::set<StreamPtr> working_;
};

// Never destroyed: threads of the emulation may outlive main.
inline Machine& machine() {
    static auto* the = new Machine;
    return *the;
}

// An entry of the driver: counted, may be made to fail.
template <class Body>
CUresult call(const char* name, Body body) {
    Machine& m = machine();
    std::unique_lock<std::mutex> lock(m.mutex);
    if (const CUresult status = m.enter(name)) return status;
    return body(m, lock);
}

// An entry that releases something. When made to fail it does its work all the same, as the real driver does when it
// hands on the error of earlier work: otherwise every such test would find a leak that nobody could have prevented.
template <class Body>
CUresult release(const char* name, Body body) {
    Machine& m = machine();
    std::unique_lock<std::mutex> lock(m.mutex);
    const CUresult failure = m.enter(name);
    if (failure == NOT_INITIALIZED || failure == NOT_PERMITTED) return failure;
    const CUresult status = body(m, lock);
    return failure ? failure : status;
}

}  // namespace emu
