// What the emulation needs of CUDA's driver interface, declared here: a bare machine has no cuda.h.
//
// Handles are opaque pointers in CUDA; here they are numbers of the same size that are never given out twice, so that
// a handle used after its object is gone is always recognised.
#pragma once

#include <cstddef>
#include <cstdint>

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using Handle = std::uintptr_t;

enum Status : CUresult {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    DEINITIALIZED = 4,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    CONTEXT_IS_DESTROYED = 709,
    LAUNCH_FAILED = 719,
    NOT_PERMITTED = 800,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
};

constexpr Handle LEGACY_STREAM = 1;  // CU_STREAM_LEGACY; 0 means the same
constexpr unsigned STREAM_NON_BLOCKING = 1;
constexpr unsigned EVENT_DISABLE_TIMING = 2;

enum CaptureMode : int { CAPTURE_GLOBAL = 0, CAPTURE_THREAD_LOCAL = 1, CAPTURE_RELAXED = 2 };
enum CaptureStatus : int { CAPTURE_NONE = 0, CAPTURE_ACTIVE = 1, CAPTURE_BROKEN = 2 };
enum MemoryType : unsigned { MEMORY_HOST = 1, MEMORY_DEVICE = 2, MEMORY_ARRAY = 3, MEMORY_UNIFIED = 4 };

// CUDA_MEMCPY2D.
struct Memcpy2D {
    std::size_t src_x_bytes, src_y;
    unsigned src_type;
    const void* src_host;
    CUdeviceptr src_device;
    void* src_array;
    std::size_t src_pitch;
    std::size_t dst_x_bytes, dst_y;
    unsigned dst_type;
    void* dst_host;
    CUdeviceptr dst_device;
    void* dst_array;
    std::size_t dst_pitch;
    std::size_t width_bytes, height;
};
