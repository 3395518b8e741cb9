// Whether an operation's memory is there, and whether somebody else may be using it at the same time.
#pragma once

#include <algorithm>

#include "machine.hpp"

namespace emu {

inline CUresult Machine::check(const Operation& operation, bool may_be_pageable) {
    for (const Touch& touch : operation.touches)
        if (touch.span.bytes())
            if (const CUresult status = check_touch(operation, touch, may_be_pageable)) return status;
    return SUCCESS;
}

inline CUresult Machine::check_touch(const Operation& operation, const Touch& touch, bool may_be_pageable) {
    const std::string what = operation.name + (touch.writes ? " writes" : " reads");
    const Span& span = touch.span;
    const bool owned = memory.owns(span.begin);
    if (!owned && touch.type != MEMORY_DEVICE) {
        if (!may_be_pageable) journal.violation("unpinned", what + " host memory that is not page-locked");
        return SUCCESS;
    }
    if (owned && memory.stale(span.begin)) return DEINITIALIZED;
    const Allocation* found = owned ? memory.find(span.begin) : nullptr;
    if (!found) {
        const Allocation* freed = owned ? memory.find_freed(span.begin) : nullptr;
        journal.violation(freed ? "use after free" : "out of bounds",
                          what + (freed ? " freed " + freed->name() : " where no buffer is"));
        return INVALID_VALUE;
    }
    if (found->pinned ? touch.type == MEMORY_DEVICE : touch.type == MEMORY_HOST) {
        journal.violation("wrong kind of memory", what + " " + found->name());
        return INVALID_VALUE;
    }
    if (span.begin < found->begin || span.end() > found->end()) {
        const auto offset = static_cast<long long>(span.begin - found->begin);
        journal.violation(
            "out of bounds", what + " bytes " + std::to_string(offset) + " to " +
                                 std::to_string(offset + static_cast<long long>(span.end() - span.begin)) + " of " +
                                 found->name());
        return INVALID_VALUE;
    }
    return found->pinned ? static_cast<CUresult>(SUCCESS) : require(found->context, found->name());
}

inline void Machine::check_races(Allocation& allocation, Access access, const Clock& clock, const char* kind) {
    auto& all = allocation.accesses;
    for (const Access& old : all)
        if ((old.writes || access.writes) && !clock.includes(old.actor, old.count) && old.span.overlaps(access.span))
            journal.violation(
                kind, old.what + (old.writes ? " writes " : " reads ") + allocation.name() + ", and " + access.what +
                          (access.writes ? " writes" : " reads") + " it without waiting for that");
    // Forget what nothing to come can race with: what the host knows to be over, and what this access stands for.
    const auto settled = [&](const Access& old) {
        return host.includes(old.actor, old.count) ||
               (clock.includes(old.actor, old.count) && (access.writes || !old.writes) &&
                access.span.covers(old.span));
    };
    all.erase(std::remove_if(all.begin(), all.end(), settled), all.end());
    if (access.actor != 0) all.push_back(std::move(access));
}

// What a test says that the host does with pinned memory; inside a callback it is the stream's doing.
inline void Machine::host_access(const Span& span, bool writes) {
    Allocation* allocation = memory.find(span.begin);
    if (!allocation) {
        journal.violation("use after free", "the host uses pinned memory that is not there");
        return;
    }
    if (const Operation* inside = this_thread.inside) {
        check_races(*allocation, {span, writes, inside->actor, inside->count, inside->name}, inside->clock);
        return;
    }
    check_races(*allocation, {span, writes, 0, 0, "the host"}, host);
}

}  // namespace emu
