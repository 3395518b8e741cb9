// Device and pinned memory, taken from one reserved range of addresses.
//
// An address is given out once in the life of the process, so that a use after free is recognised however late it
// comes, and never hits somebody else's memory. What was freed stays mapped: a stray read is reported, not a crash.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cuda_abi.hpp"
#include "span.hpp"

namespace emu {

// Fresh memory is no lucky zero. As float32 it is -2.6e36, as float16 -65376, as uint8 251.
constexpr unsigned char FRESH = 0xFB;
constexpr unsigned char RED = 0xED;
constexpr std::size_t RED_BYTES = 512;  // at least, on either side; also the alignment of allocations
constexpr std::size_t PAGE = 4096;

// Somebody touched these bytes: `actor`'s `count`-th deed. Kept per allocation until nothing can race with it.
struct Access {
    Span span;
    bool writes = false;
    std::size_t actor = 0;
    std::uint64_t count = 0;
    std::string what;
};

struct Allocation {
    std::uintptr_t begin = 0;
    std::size_t bytes = 0;
    bool pinned = false;
    Handle context = 0;
    int device = 0;
    std::uint64_t number = 0;
    unsigned flags = 0;
    bool hurt_told = false;
    std::vector<Access> accesses;

    std::uintptr_t end() const { return begin + bytes; }
    std::string name() const {
        return (pinned ? "pinned buffer " : "device buffer ") + std::to_string(number) + " (" + std::to_string(bytes) +
               " bytes)";
    }
};

class AddressSpace {
public:
    // Nullptr when the host has no more.
    Allocation* allocate(std::size_t bytes) {
        const std::size_t size = (RED_BYTES + bytes + RED_BYTES + PAGE - 1) / PAGE * PAGE;
        if (!reserve() || size > limit_ - next_) return nullptr;
        void* block = reinterpret_cast<void*>(next_);
        if (mprotect(block, size, PROT_READ | PROT_WRITE) != 0) return nullptr;
        std::memset(block, RED, size);
        Allocation made;
        made.begin = next_ + RED_BYTES;
        made.bytes = bytes;
        std::memset(reinterpret_cast<void*>(made.begin), FRESH, bytes);
        next_ += size;
        return &(live_[made.begin] = made);
    }

    void release(std::uintptr_t begin) {
        const auto found = live_.find(begin);
        const std::uintptr_t block = begin - RED_BYTES;
        const std::size_t size = (found->second.end() + RED_BYTES + PAGE - 1) / PAGE * PAGE - block;
        madvise(reinterpret_cast<void*>(block), size, MADV_DONTNEED);
        found->second.accesses.clear();
        freed_[begin] = found->second;
        live_.erase(found);
    }

    bool owns(std::uintptr_t address) const { return base_ && base_ <= address && address < next_; }

    // The live allocation that begins at or nearest below the address, whose red zones included it lies in.
    Allocation* find(std::uintptr_t address) { return nearest(live_, address); }
    const Allocation* find_freed(std::uintptr_t address) { return nearest(freed_, address); }

    Allocation* at(std::uintptr_t begin) {
        const auto found = live_.find(begin);
        return found == live_.end() ? nullptr : &found->second;
    }

    std::map<std::uintptr_t, Allocation>& live() { return live_; }

    // Whether something wrote just outside, which only code that runs on the host can; told once.
    static bool hurt(Allocation& allocation) {
        const auto* before = reinterpret_cast<const unsigned char*>(allocation.begin - RED_BYTES);
        const auto* after = reinterpret_cast<const unsigned char*>(allocation.end());
        bool whole = true;
        for (std::size_t i = 0; i < RED_BYTES; ++i) whole = whole && before[i] == RED && after[i] == RED;
        return !whole && !std::exchange(allocation.hurt_told, true);
    }

    void forget() {
        while (!live_.empty()) release(live_.begin()->first);
        freed_.clear();
        first_ = next_;
    }

    // From before the last reset.
    bool stale(std::uintptr_t address) const { return base_ && base_ <= address && address < first_; }

private:
    static Allocation* nearest(std::map<std::uintptr_t, Allocation>& among, std::uintptr_t address) {
        auto after = among.upper_bound(address + RED_BYTES);
        if (after == among.begin()) return nullptr;
        Allocation& found = std::prev(after)->second;
        return address < found.end() + RED_BYTES ? &found : nullptr;
    }

    bool reserve() {
        for (std::size_t size = std::size_t{1} << 40; !base_ && size >= (std::size_t{1} << 28); size >>= 1) {
            void* range = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (range == MAP_FAILED) continue;
            madvise(range, size, MADV_NOHUGEPAGE);  // small buffers must not cost 2 MB each
            base_ = first_ = next_ = reinterpret_cast<std::uintptr_t>(range);
            limit_ = base_ + size;
        }
        return base_ != 0;
    }

    std::uintptr_t base_ = 0, first_ = 0, next_ = 0, limit_ = 0;
    std::map<std::uintptr_t, Allocation> live_, freed_;
};

}  // namespace emu
