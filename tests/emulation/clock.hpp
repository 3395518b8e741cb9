// Vector clocks. Each actor (the host, each stream) counts what it does; a clock tells how much of every actor's work
// is known to have happened. An access happens before an operation exactly if the operation's clock includes it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace emu {

class Clock {
public:
    void join(const Clock& other) {
        if (counts_.size() < other.counts_.size()) counts_.resize(other.counts_.size());
        for (std::size_t i = 0; i < other.counts_.size(); ++i) counts_[i] = std::max(counts_[i], other.counts_[i]);
    }

    std::uint64_t advance(std::size_t actor) {
        if (counts_.size() <= actor) counts_.resize(actor + 1);
        return ++counts_[actor];
    }

    bool includes(std::size_t actor, std::uint64_t count) const {
        return actor < counts_.size() && counts_[actor] >= count;
    }

private:
    std::vector<std::uint64_t> counts_;
};

}  // namespace emu
