// Copies and memsets. The synchronous ones go on the legacy NULL stream and are waited for.
#pragma once

#include <cstring>

#include "machine.hpp"

namespace emu {

struct End {
    Span span;
    MemoryType type;
};

inline void copy_rows(const Span& to, const Span& from, std::size_t first, std::size_t last) {
    for (std::size_t row = first; row < last; ++row)
        std::memmove(
            reinterpret_cast<void*>(to.begin + row * to.pitch),
            reinterpret_cast<const void*>(from.begin + row * from.pitch), to.row_bytes);
}

// In two halves, so that whoever does not wait for all of it sees half of it.
inline void copy(const Span& to, const Span& from, const Pace& pace) {
    if (to.rows > 1) {
        copy_rows(to, from, 0, to.rows / 2);
        pace.middle();
        copy_rows(to, from, to.rows / 2, to.rows);
        return;
    }
    const std::size_t half = to.row_bytes / 2;
    std::memmove(reinterpret_cast<void*>(to.begin), reinterpret_cast<const void*>(from.begin), half);
    pace.middle();
    std::memmove(
        reinterpret_cast<void*>(to.begin + half), reinterpret_cast<const void*>(from.begin + half),
        to.row_bytes - half);
}

inline bool pageable(const Machine& m, const End& end) {
    return end.type != MEMORY_DEVICE && !m.memory.owns(end.span.begin);
}

inline bool on_host(Machine& m, const End& end) {
    if (end.type != MEMORY_UNIFIED) return end.type == MEMORY_HOST;
    if (!m.memory.owns(end.span.begin)) return true;
    const Allocation* found = m.memory.find(end.span.begin);
    return found && found->pinned;
}

enum class Waits { never, always };

inline CUresult copy_on(
    Machine& m, std::unique_lock<std::mutex>& lock, Handle handle, const End& to, const End& from, Waits waits) {
    StreamPtr stream;
    if (waits == Waits::always && m.capture_forbids()) return CAPTURE_UNSUPPORTED;
    if (const CUresult status = m.find_stream(handle, stream)) return status;
    if (!to.span.bytes()) return SUCCESS;
    if (to.span.rows > 1 && (to.span.pitch < to.span.row_bytes || from.span.pitch < to.span.row_bytes))
        return INVALID_VALUE;
    const bool in = on_host(m, from), out = on_host(m, to);
    Operation operation;
    operation.kind = in == out ? "copy_device" : in ? "copy_in" : "copy_out";
    operation.bytes = to.span.bytes();
    operation.touches = {{to.span, true, to.type}, {from.span, false, from.type}};
    // As the driver does: pageable memory is read before the call returns, and written before it returns.
    const bool snapshot = pageable(m, from) && !stream->capture;
    if (snapshot) {
        auto staged = std::make_shared<std::vector<unsigned char>>(from.span.bytes());
        Span packed{reinterpret_cast<std::uintptr_t>(staged->data()), from.span.row_bytes, from.span.rows,
                    from.span.row_bytes};
        copy_rows(packed, from.span, 0, from.span.rows);
        operation.work = [staged, packed, to](const Pace& pace) { return copy(to.span, packed, pace), SUCCESS; };
    } else {
        operation.work = [to, from](const Pace& pace) { return copy(to.span, from.span, pace), SUCCESS; };
    }
    if (const CUresult status = m.submit(stream, std::move(operation), waits == Waits::always)) return status;
    if (stream->capture || (waits == Waits::never && !pageable(m, to))) return SUCCESS;
    const Clock clock = stream->clock;
    if (const CUresult status = m.await(lock, stream->last)) return status;
    m.host.join(clock);
    return SUCCESS;
}

inline CUresult copy_call(const char* name, Handle stream, const End& to, const End& from, Waits waits) {
    return call(name, [&](Machine& m, auto& lock) { return copy_on(m, lock, stream, to, from, waits); });
}

inline End device(CUdeviceptr address, std::size_t bytes) { return {{address, bytes, 1, bytes}, MEMORY_DEVICE}; }
inline End unified(CUdeviceptr address, std::size_t bytes) { return {{address, bytes, 1, bytes}, MEMORY_UNIFIED}; }
inline End host(const void* address, std::size_t bytes) {
    return {{reinterpret_cast<std::uintptr_t>(address), bytes, 1, bytes}, MEMORY_HOST};
}

inline CUresult copy_2d(const char* name, Handle stream, const Memcpy2D* c, Waits waits) {
    if (c->src_type == MEMORY_ARRAY || c->dst_type == MEMORY_ARRAY) return NOT_SUPPORTED;
    const auto end = [&](unsigned type, const void* host, CUdeviceptr device, std::size_t x, std::size_t y,
                         std::size_t pitch) {
        if (pitch == 0) pitch = c->width_bytes;
        const std::uintptr_t base = type == MEMORY_HOST ? reinterpret_cast<std::uintptr_t>(host) : device;
        return End{{base + y * pitch + x, c->width_bytes, c->height, pitch}, static_cast<MemoryType>(type)};
    };
    return copy_call(
        name, stream, end(c->dst_type, c->dst_host, c->dst_device, c->dst_x_bytes, c->dst_y, c->dst_pitch),
        end(c->src_type, c->src_host, c->src_device, c->src_x_bytes, c->src_y, c->src_pitch), waits);
}

inline CUresult memset_on(
    const char* name, Handle handle, CUdeviceptr address, std::size_t pitch, const void* value, std::size_t size,
    std::size_t width, std::size_t rows) {
    const std::string pattern(static_cast<const char*>(value), size);
    return call(name, [&](Machine& m, auto&) -> CUresult {
        StreamPtr stream;
        if (const CUresult status = m.find_stream(handle, stream)) return status;
        const Span span{address, width * size, rows, rows > 1 ? pitch : width * size};
        Operation operation;
        operation.kind = "memset";
        operation.bytes = span.bytes();
        operation.touches = {{span, true, MEMORY_UNIFIED}};
        operation.work = [span, pattern](const Pace& pace) {
            for (std::size_t row = 0; row < span.rows; ++row)
                for (std::size_t x = 0; x < span.row_bytes; x += pattern.size())
                    std::memcpy(
                        reinterpret_cast<void*>(span.begin + row * span.pitch + x), pattern.data(), pattern.size());
            return pace.middle(), SUCCESS;
        };
        return m.submit(stream, std::move(operation));
    });
}

}  // namespace emu

extern "C" {

using emu::Waits;

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, std::size_t n) {
    return emu::copy_call("cuMemcpyHtoD", 0, emu::device(to, n), emu::host(from, n), Waits::always);
}
CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, std::size_t n) {
    return emu::copy_call("cuMemcpyDtoH", 0, emu::host(to, n), emu::device(from, n), Waits::always);
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, std::size_t n) {
    return emu::copy_call("cuMemcpyDtoD", 0, emu::device(to, n), emu::device(from, n), Waits::never);
}
CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, std::size_t n) {
    return emu::copy_call("cuMemcpy", 0, emu::unified(to, n), emu::unified(from, n), Waits::always);
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, std::size_t n, Handle stream) {
    return emu::copy_call("cuMemcpyHtoDAsync", stream, emu::device(to, n), emu::host(from, n), Waits::never);
}
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, std::size_t n, Handle stream) {
    return emu::copy_call("cuMemcpyDtoHAsync", stream, emu::host(to, n), emu::device(from, n), Waits::never);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, std::size_t n, Handle stream) {
    return emu::copy_call("cuMemcpyDtoDAsync", stream, emu::device(to, n), emu::device(from, n), Waits::never);
}
CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, std::size_t n, Handle stream) {
    return emu::copy_call("cuMemcpyAsync", stream, emu::unified(to, n), emu::unified(from, n), Waits::never);
}
CUresult cuMemcpy2D_v2(const Memcpy2D* c) { return emu::copy_2d("cuMemcpy2D", 0, c, Waits::always); }
CUresult cuMemcpy2DUnaligned_v2(const Memcpy2D* c) { return emu::copy_2d("cuMemcpy2DUnaligned", 0, c, Waits::always); }
CUresult cuMemcpy2DAsync_v2(const Memcpy2D* c, Handle stream) {
    return emu::copy_2d("cuMemcpy2DAsync", stream, c, Waits::never);
}

#define MEMSETS(BITS, TYPE)                                                                                        \
    CUresult cuMemsetD##BITS##_v2(CUdeviceptr to, TYPE value, std::size_t n) {                                     \
        return emu::memset_on("cuMemsetD" #BITS, 0, to, 0, &value, sizeof value, n, 1);                            \
    }                                                                                                              \
    CUresult cuMemsetD##BITS##Async(CUdeviceptr to, TYPE value, std::size_t n, Handle stream) {                    \
        return emu::memset_on("cuMemsetD" #BITS "Async", stream, to, 0, &value, sizeof value, n, 1);               \
    }                                                                                                              \
    CUresult cuMemsetD2D##BITS##_v2(CUdeviceptr to, std::size_t pitch, TYPE value, std::size_t w, std::size_t h) { \
        return emu::memset_on("cuMemsetD2D" #BITS, 0, to, pitch, &value, sizeof value, w, h);                      \
    }                                                                                                              \
    CUresult cuMemsetD2D##BITS##Async(                                                                             \
        CUdeviceptr to, std::size_t pitch, TYPE value, std::size_t w, std::size_t h, Handle stream) {              \
        return emu::memset_on("cuMemsetD2D" #BITS "Async", stream, to, pitch, &value, sizeof value, w, h);         \
    }
MEMSETS(8, unsigned char)
MEMSETS(16, unsigned short)
MEMSETS(32, unsigned)
#undef MEMSETS
}
