// Bytes that an operation touches: equal rows, one every `pitch` bytes. Windows of one image that share rows but no
// column do not overlap, so a plain interval would report races that are none.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emu {

struct Span {
    std::uintptr_t begin = 0;
    std::size_t row_bytes = 0;
    std::size_t rows = 1;
    std::size_t pitch = 0;

    std::uintptr_t end() const { return rows ? begin + (rows - 1) * pitch + row_bytes : begin; }
    std::size_t bytes() const { return rows * row_bytes; }
    bool dense() const { return rows <= 1 || pitch == row_bytes; }

    bool meets(std::uintptr_t from, std::uintptr_t to) const {
        if (to <= begin || from >= end() || !bytes()) return false;
        if (dense()) return true;
        // The last row that starts before `to`; earlier rows end before this one does.
        const std::size_t last = (to - 1 - begin) / pitch;
        const std::size_t row = last < rows ? last : rows - 1;
        return begin + row * pitch + row_bytes > from;
    }

    bool overlaps(const Span& other) const {
        if (dense()) return other.meets(begin, end());
        for (std::size_t row = 0; row < rows; ++row) {
            const std::uintptr_t from = begin + row * pitch;
            if (other.meets(from, from + row_bytes)) return true;
        }
        return false;
    }

    bool covers(const Span& other) const {
        if (dense()) return begin <= other.begin && other.end() <= end();
        return begin == other.begin && row_bytes == other.row_bytes && rows == other.rows && pitch == other.pitch;
    }
};

}  // namespace emu
