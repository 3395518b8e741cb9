// Everything else: names of errors, the look-up of functions, and the functions that are not emulated.
#pragma once

#include <dlfcn.h>

#include <cstring>
#include <string>

#include "machine.hpp"

extern "C" {

static const char* error_name(int status) {
    static const std::map<int, const char*> names = {
        {SUCCESS, "CUDA_SUCCESS"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
        {DEINITIALIZED, "CUDA_ERROR_DEINITIALIZED"},
        {100, "CUDA_ERROR_NO_DEVICE"},
        {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {NOT_READY, "CUDA_ERROR_NOT_READY"},
        {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED"},
        {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
        {NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED"},
        {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
        {CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"},
        {CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"},
        {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT"},
        {CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"},
        {999, "CUDA_ERROR_UNKNOWN"},
    };
    const auto found = names.find(status);
    return found == names.end() ? nullptr : found->second;
}

CUresult cuGetErrorName(CUresult status, const char** name) {
    *name = error_name(status);
    return *name ? SUCCESS : INVALID_VALUE;
}

// In the driver's style: "out of memory".
CUresult cuGetErrorString(CUresult status, const char** text) {
    static thread_local std::string words;
    const char* name = error_name(status);
    words = name ? name : "unrecognized error code";
    if (words.rfind("CUDA_ERROR_", 0) == 0) words = words.substr(11);
    for (char& c : words) c = c == '_' ? ' ' : static_cast<char>(std::tolower(c));
    *text = words.c_str();
    return name ? SUCCESS : INVALID_VALUE;
}

// A caller that passes arguments does no harm: the caller removes them.
static CUresult unsupported() { return NOT_SUPPORTED; }

CUresult cuGetProcAddress_v2(const char* name, void** function, int version, std::uint64_t flags, int* found) {
    const std::string base = name;
    const bool per_thread = flags & 2;  // per-thread default streams are not emulated
    if (found) *found = 0;
    // The one name whose arguments depend on the version that is asked for.
    if (base == "cuCtxCreate") {
        *function = version >= 12050   ? reinterpret_cast<void*>(cuCtxCreate_v4)
                    : version >= 11040 ? reinterpret_cast<void*>(cuCtxCreate_v3)
                                       : reinterpret_cast<void*>(cuCtxCreate_v2);
        return SUCCESS;
    }
    if (base == "cuGraphInstantiate") {
        *function = reinterpret_cast<void*>(cuGraphInstantiateWithFlags);  // since 12.0
        return SUCCESS;
    }
    *function = reinterpret_cast<void*>(unsupported);
    Dl_info self{};
    if (per_thread || !dladdr(reinterpret_cast<void*>(unsupported), &self)) return SUCCESS;
    void* library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    if (!library) return SUCCESS;
    for (const char* suffix : {"_v4", "_v3", "_v2", ""})
        if (void* symbol = dlsym(library, (base + suffix).c_str())) {
            *function = symbol;
            break;
        }
    dlclose(library);
    return SUCCESS;
}

CUresult cuGetProcAddress(const char* name, void** function, int version, std::uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}

CUresult cuMemHostRegister_v2(void*, std::size_t, unsigned) { return NOT_SUPPORTED; }

// Its logs are empty: pycuda reads as many bytes of them as this says were written.
CUresult cuModuleLoadDataEx(void**, const void*, unsigned count, const int* options, void** values) {
    const int info_size = 4, error_size = 6;  // CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
    for (unsigned index = 0; index < count; ++index)
        if (options[index] == info_size || options[index] == error_size) values[index] = nullptr;
    return NOT_SUPPORTED;
}

// What pycuda's extension links against beyond what is emulated.
#define UNSUPPORTED(NAME) \
    CUresult NAME() { return NOT_SUPPORTED; }
#include "unsupported.inc"
#undef UNSUPPORTED
}
