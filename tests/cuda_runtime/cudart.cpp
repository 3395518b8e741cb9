// A stand-in for libcudart.so.13: one GPU whose memory is the host's. Copies are made at once, kernels compute nothing.
//
// ONNX Runtime's real CUDA provider starts on it, takes its share of a graph, loads weights and enqueues. What it calls
// is written to the file of CUDA_JOURNAL, one call a line. Declared here is what the provider calls with an effect that
// it needs; everything else that it names is a function that returns 0 (library.py). Offsets are those of CUDA 13.
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

FILE* journal() {
    static FILE* file = [] {
        const char* path = std::getenv("CUDA_JOURNAL");
        return path ? std::fopen(path, "a") : nullptr;
    }();
    return file;
}

void say(const char* format, ...) {
    if (FILE* file = journal()) {
        va_list values;
        va_start(values, format);
        std::vfprintf(file, format, values);
        va_end(values);
        std::fputc('\n', file);
        std::fflush(file);
    }
}

void* take(std::size_t bytes) { return std::aligned_alloc(256, (bytes + 511) / 256 * 256); }

void* handle() { return std::malloc(8); }

template <class T>
void put(void* structure, std::size_t offset, T value) {
    std::memcpy(static_cast<char*>(structure) + offset, &value, sizeof value);
}

constexpr std::size_t DEVICE_PROPERTIES_BYTES = 1008, FUNCTION_ATTRIBUTES_BYTES = 144, POINTER_ATTRIBUTES_BYTES = 88;
constexpr int DEVICE_MEMORY = 2, SYMBOL_NOT_FOUND = 1;

struct Dim3 {
    unsigned x, y, z;
};
thread_local struct {
    Dim3 grid, block;
    std::size_t shared;
    void* stream;
} pushed;

}  // namespace

extern "C" {

// Kernels: registered, never run.
void** __cudaRegisterFatBinary(void*) {
    static void* binaries[1];
    return binaries;
}
unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, std::size_t shared, void* stream) {
    pushed = {grid, block, shared, stream};
    return 0;
}
int __cudaPopCallConfiguration(Dim3* grid, Dim3* block, std::size_t* shared, void** stream) {
    *grid = pushed.grid, *block = pushed.block, *shared = pushed.shared, *stream = pushed.stream;
    return 0;
}
int __cudaGetKernel(void** kernel, void* function) { return *kernel = function, 0; }
int __cudaLaunchKernel(void*, Dim3, Dim3, void**, std::size_t, void* stream) { return say("kernel %p", stream), 0; }
int cudaLaunchKernel(void*, Dim3, Dim3, void**, std::size_t, void* stream) { return say("kernel %p", stream), 0; }
int cudaLaunchCooperativeKernel(void*, Dim3, Dim3, void**, std::size_t, void* stream) {
    return say("kernel %p", stream), 0;
}
int cudaLaunchKernelExC(void** launch, void*, void**) { return say("kernel %p", launch[4]), 0; }
int cudaLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    say("hostfunc %p", stream);
    function(data);
    return 0;
}
int cudaFuncGetAttributes(void* attributes, void*) {
    std::memset(attributes, 0, FUNCTION_ATTRIBUTES_BYTES);
    put(attributes, 24, 1024), put(attributes, 32, 90), put(attributes, 36, 90);
    return 0;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void*, int, std::size_t, unsigned) {
    return *blocks = 1, 0;
}

// The device.
int cudaGetDeviceCount(int* count) { return *count = 1, 0; }
int cudaGetDevice(int* ordinal) { return *ordinal = 0, 0; }
int cudaDriverGetVersion(int* version) { return *version = 13000, 0; }
int cudaRuntimeGetVersion(int* version) { return *version = 13000, 0; }
int cudaDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : attribute == 1 ? 1024 : 1;
    return 0;
}
int cudaGetDeviceProperties(void* properties, int) {
    std::memset(properties, 0, DEVICE_PROPERTIES_BYTES);
    std::strcpy(static_cast<char*>(properties), "stand-in");
    put(properties, 288, std::size_t{80} << 30), put(properties, 296, std::size_t{49152});
    put(properties, 304, 65536), put(properties, 308, 32), put(properties, 320, 1024);
    put(properties, 336, 0x7fffffff), put(properties, 340, 65535), put(properties, 344, 65535);
    put(properties, 360, 9), put(properties, 364, 0), put(properties, 368, std::size_t{512});
    put(properties, 384, 132), put(properties, 604, 2048);
    put(properties, 624, std::size_t{233472}), put(properties, 672, std::size_t{232448});
    return 0;
}
int cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    return *free = std::size_t{70} << 30, *total = std::size_t{80} << 30, 0;
}
int cudaDeviceSynchronize() { return say("synchronize device"), 0; }
int cudaGetDriverEntryPointByVersion(const char*, void** function, unsigned, unsigned long long, int* found) {
    *function = nullptr;
    if (found) *found = SYMBOL_NOT_FOUND;
    return 0;
}
const char* cudaGetErrorName(int) { return "cudaErrorOfTheStandIn"; }
const char* cudaGetErrorString(int) { return "an error of the stand-in"; }

// Memory.
int cudaMalloc(void** address, std::size_t bytes) {
    *address = take(bytes);
    say("allocate %p %zu", *address, bytes);
    return 0;
}
int cudaMallocHost(void** address, std::size_t bytes) { return *address = take(bytes), say("pinned %zu", bytes), 0; }
int cudaHostAlloc(void** address, std::size_t bytes, unsigned) { return cudaMallocHost(address, bytes); }
int cudaFree(void* address) { return say("free %p", address), std::free(address), 0; }
int cudaFreeHost(void* address) { return std::free(address), 0; }
int cudaMallocFromPoolAsync(void** address, std::size_t bytes, void*, void*) { return cudaMalloc(address, bytes); }
int cudaFreeAsync(void* address, void*) { return cudaFree(address); }
int cudaMemPoolCreate(void** pool, void*) { return *pool = handle(), 0; }
int cudaMemPoolGetAttribute(void*, int, std::size_t* value) { return *value = 0, 0; }
int cudaPointerGetAttributes(void* attributes, void* address) {
    std::memset(attributes, 0, POINTER_ATTRIBUTES_BYTES);
    put(attributes, 0, DEVICE_MEMORY), put(attributes, 8, address);
    return 0;
}
int cudaMemcpy(void* to, const void* from, std::size_t bytes, int kind) {
    say("copy now kind=%d", kind);
    std::memmove(to, from, bytes);
    return 0;
}
int cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, int kind, void* stream) {
    say("copy %p kind=%d", stream, kind);
    std::memmove(to, from, bytes);
    return 0;
}
int cudaMemset(void* to, int value, std::size_t bytes) {
    say("fill now");
    std::memset(to, value, bytes);
    return 0;
}
int cudaMemsetAsync(void* to, int value, std::size_t bytes, void* stream) {
    say("fill %p", stream);
    std::memset(to, value, bytes);
    return 0;
}

// Streams, events, graphs.
int cudaStreamCreate(void** stream) { return *stream = handle(), say("stream"), 0; }
int cudaStreamCreateWithFlags(void** stream, unsigned) { return cudaStreamCreate(stream); }
int cudaStreamSynchronize(void* stream) { return say("synchronize %p", stream), 0; }
int cudaStreamWaitEvent(void* stream, void*, unsigned) { return say("wait %p", stream), 0; }
int cudaStreamIsCapturing(void*, int* status) { return *status = 0, 0; }
int cudaStreamBeginCapture(void* stream, int) { return say("capture %p", stream), 0; }
int cudaStreamEndCapture(void*, void** graph) { return *graph = handle(), 0; }
int cudaGraphInstantiate(void** executable, void*, unsigned long long) { return *executable = handle(), 0; }
int cudaGraphLaunch(void*, void* stream) { return say("replay %p", stream), 0; }
int cudaEventCreate(void** event) { return *event = handle(), 0; }
int cudaEventCreateWithFlags(void** event, unsigned) { return *event = handle(), 0; }
int cudaEventRecord(void*, void* stream) { return say("record %p", stream), 0; }
int cudaEventSynchronize(void*) { return say("synchronize event"), 0; }
}
