// How operations get into streams, and how a stream's thread runs them.
#pragma once

#include "machine.hpp"

namespace emu {

// A number in [0, 1) that depends on nothing but its arguments: the same program has the same delays again.
inline double chance(std::uint64_t seed, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
    std::uint64_t x = seed * 0x9E3779B97F4A7C15u + a * 0xBF58476D1CE4E5B9u + b * 0x94D049BB133111EBu + c;
    for (int i = 0; i < 2; ++i) {
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
        x ^= x >> 31;
    }
    return static_cast<double>(x >> 11) / 9007199254740992.0;
}

inline CUresult Machine::submit(const StreamPtr& stream, Operation operation, bool may_be_pageable) {
    if (!stream->capture && stream->blocking() && implicit_capture(*stream)) return CAPTURE_IMPLICIT;
    operation.name = (operation.label.empty() ? operation.kind : operation.label) + " " +
                     std::to_string(++operations_) + " on " + stream->name;
    if (const CUresult status = check(operation, may_be_pageable)) return status;
    if (stream->capture) {
        if (stream->capture->broken) return CAPTURE_INVALIDATED;
        stream->capture->operations.push_back(std::move(operation));
        return SUCCESS;
    }
    operation.submitted_s = now_s();
    wait_for_the_others(*stream, operation);
    operation.clock.join(stream->clock);
    operation.clock.join(host);
    operation.actor = stream->actor;
    operation.count = operation.clock.advance(stream->actor);
    stream->clock = operation.clock;
    for (const Touch& touch : operation.touches)
        if (Allocation* allocation = memory.find(touch.span.begin))
            check_races(
                *allocation, {touch.span, touch.writes, operation.actor, operation.count, operation.name},
                operation.clock);
    schedule(stream, std::move(operation));
    return SUCCESS;
}

// What the legacy NULL stream does: it and every blocking stream of its context wait for each other.
inline void Machine::wait_for_the_others(Stream& stream, Operation& operation) {
    const auto found = contexts.find(stream.context);
    if (!stream.blocking() || found == contexts.end() || !found->second.legacy) return;
    const auto follow = [&](const Stream& other) {
        if (other.last) operation.waits.push_back(other.last);
        operation.clock.join(other.clock);
    };
    const StreamPtr& legacy = found->second.legacy;
    if (&stream != legacy.get()) return follow(*legacy);
    for (const auto& [_, other] : streams)
        if (other->context == stream.context && other->blocking()) follow(*other);
}

inline void Machine::schedule(const StreamPtr& stream, Operation operation) {
    operation.completion = stream->last = std::make_shared<Completion>();
    // Half of them none: an operation that is early where others are late finds more than all being a little late.
    const auto random = [&](int which) {
        const double drawn = chance(settings.seed, operation.actor, operation.count, which);
        return settings.max_delay_s * std::max(0.0, 2 * drawn - 1);
    };
    if (operation.work) {
        operation.pace.before_s = random(0);
        operation.pace.middle_s = random(1);
        const auto found = settings.durations_s.find(operation.kind);
        if (found != settings.durations_s.end()) operation.pace.least_s = found->second;
        const auto context = contexts.find(stream->context);
        operation.trace_index = journal.submitted(
            {stream->name, operation.kind, operation.label, context->second.device, operation.bytes,
             operation.submitted_s, -1, -1});
    }
    stream->queue.push_back(std::move(operation));
    if (!stream->started) {
        stream->started = true;
        working_.insert(stream);
        std::thread([this, stream] { work(stream); }).detach();
    }
    changed.notify_all();
}

inline void Machine::work(const StreamPtr& stream) {
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
        changed.wait(lock, [&] { return stream->abandoned || stream->closing || !stream->queue.empty(); });
        if (stream->abandoned || stream->queue.empty()) break;
        Operation operation = std::move(stream->queue.front());
        stream->queue.pop_front();
        const auto ready = [&] {
            for (const auto& wait : operation.waits)
                if (!wait->done) return false;
            return true;
        };
        changed.wait(lock, [&] { return stream->abandoned || ready(); });
        if (stream->abandoned) break;
        stream->running = true;
        run(lock, *stream, operation);
        stream->running = false;
        operation.completion->done = true;
        changed.notify_all();
    }
    working_.erase(stream);
    changed.notify_all();
}

// With a fixed duration an operation occupies exactly that time on the device's own clock, which begins when its stream
// and what it waits for are ready: that the host wakes a thread late does not add up.
inline void Machine::run(std::unique_lock<std::mutex>& lock, Stream& stream, Operation& operation) {
    double ready_s = std::max(operation.submitted_s, stream.idle_since_s);
    for (const auto& wait : operation.waits) ready_s = std::max(ready_s, wait->stop_s);
    const bool fixed = !settings.durations_s.empty();
    double start_s = fixed ? ready_s : now_s();
    double stop_s = start_s;
    const auto context = contexts.find(stream.context);
    if (operation.work && (context == contexts.end() || context->second.broken == SUCCESS)) {
        CUresult status = operation_fault.strikes(operation.kind);
        lock.unlock();
        if (operation.pace.before_s > 0)
            std::this_thread::sleep_for(std::chrono::duration<double>(operation.pace.before_s));
        if (!fixed) start_s = now_s();
        this_thread.inside = &operation;
        if (status == SUCCESS) status = operation.work(operation.pace);
        this_thread.inside = nullptr;
        stop_s = start_s + operation.pace.least_s;
        const double now = now_s();
        if (stop_s > now) std::this_thread::sleep_for(std::chrono::duration<double>(stop_s - now));
        if (!fixed || now > stop_s) stop_s = now_s();
        lock.lock();
        const auto still = contexts.find(stream.context);
        if (status != SUCCESS && still != contexts.end()) still->second.broken = status;
        if (!stream.abandoned) journal.ran(operation.trace_index, start_s, stop_s);
    }
    stream.idle_since_s = operation.completion->stop_s = stop_s;
}

// Give everything up: what waits in streams is dropped, what runs is waited for. False if it does not end.
inline bool Machine::reset(std::unique_lock<std::mutex>& lock, double patience_s) {
    for (const auto& stream : working_) {
        stream->abandoned = true;
        for (const auto& operation : stream->queue) operation.completion->done = true;
        stream->queue.clear();
    }
    changed.notify_all();
    const bool ended = changed.wait_for(
        lock, std::chrono::duration<double>(patience_s), [&] { return working_.empty(); });
    working_.clear();
    ++epoch;
    changed.notify_all();
    stale_handles_ = next_handle_;
    streams.clear();
    events.clear();
    graphs.clear();
    executables.clear();
    for (const auto& [handle, _] : contexts) void_contexts.insert(handle);
    contexts.clear();
    memory.forget();
    journal = Journal{};
    settings = Settings{};
    call_fault = operation_fault = Fault{};
    host = Clock{};
    actors_ = 0;
    operations_ = 0;
    numbers_.clear();
    for (std::size_t i = 0; i < devices.size(); ++i) void_retains[static_cast<int>(i)] += devices[i].retained;
    devices.clear();
    return ended;
}

}  // namespace emu
