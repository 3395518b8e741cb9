// Streams, and the operations in them: a thread per stream, work in the order in which it was submitted.
#pragma once

#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "clock.hpp"
#include "cuda_abi.hpp"
#include "memory.hpp"

namespace emu {

// What an operation turns into when it is over. Whoever waits keeps it, so that recording an event again does not
// change what earlier waits wait for.
struct Completion {
    bool done = false;
    double stop_s = -std::numeric_limits<double>::infinity();
};
using CompletionPtr = std::shared_ptr<Completion>;

struct Touch {
    Span span;
    bool writes = false;
    MemoryType type = MEMORY_DEVICE;  // what the caller says that it is
};

// How an operation spends its time besides its work.
struct Pace {
    double before_s = 0;
    double middle_s = 0;
    double least_s = 0;  // all of it takes at least so long
    void middle() const {
        if (middle_s > 0) std::this_thread::sleep_for(std::chrono::duration<double>(middle_s));
    }
};

// Returns a status; anything but SUCCESS breaks the context, as a failing kernel does.
using Work = std::function<CUresult(const Pace&)>;

struct Operation {
    std::string kind;  // copy_in, copy_out, copy_device, memset, compute, host, record, wait
    std::string label;
    std::size_t bytes = 0;
    std::vector<Touch> touches;
    Work work;

    // Filled in when it is submitted.
    std::vector<CompletionPtr> waits;
    CompletionPtr completion;
    Clock clock;
    std::size_t actor = 0;
    std::uint64_t count = 0;
    std::size_t trace_index = 0;
    double submitted_s = 0;
    Pace pace;
    std::string name;
};

struct Capture {
    std::uint64_t number = 0;
    CaptureMode mode = CAPTURE_GLOBAL;
    std::thread::id thread;
    bool broken = false;
    std::vector<Operation> operations;
};

struct Stream {
    Handle handle = 0;
    Handle context = 0;
    unsigned flags = 0;
    std::size_t actor = 0;
    std::string name;
    Clock clock;  // of what was submitted last
    CompletionPtr last;
    std::unique_ptr<Capture> capture;

    std::deque<Operation> queue;
    double idle_since_s = 0;
    bool started = false;
    bool running = false;
    bool closing = false;    // its thread ends when the queue is empty
    bool abandoned = false;  // ... or now

    bool blocking() const { return !(flags & STREAM_NON_BLOCKING); }
};
using StreamPtr = std::shared_ptr<Stream>;

struct Event {
    Handle handle = 0;
    Handle context = 0;
    unsigned flags = 0;
    CompletionPtr recorded;  // null: never recorded, which counts as having happened
    Clock clock;
    std::uint64_t capture = 0;  // the capture that it was recorded in, if it was the last time
};

struct Graph {
    std::vector<Operation> operations;
    CompletionPtr last;  // a launch waits for the one before
    Clock clock;
};

}  // namespace emu
