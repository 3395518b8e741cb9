// One grey byte in, one label out: 1 where the sum over 3 x 3 samples, zero outside the tile, exceeds a threshold.
// `spins` is work that changes nothing, so that the kernel takes as long as a network would.
extern "C" __global__ void box_threshold(const unsigned char* image, unsigned char* labels, int height, int width,
                                         int threshold, int spins) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) {
        return;
    }
    const size_t tile = static_cast<size_t>(blockIdx.z) * height * width;
    int sum = 0;
    for (int dy = -1; dy <= 1; ++dy) {
        for (int dx = -1; dx <= 1; ++dx) {
            const int row = y + dy, column = x + dx;
            if (row >= 0 && row < height && column >= 0 && column < width) {
                sum += image[tile + static_cast<size_t>(row) * width + column];
            }
        }
    }
    unsigned work = sum;
    for (int i = 0; i < spins; ++i) {
        work = work * 1664525u + 1013904223u;
    }
    // No sum is negative: the second condition is never true, but the compiler cannot know.
    labels[tile + static_cast<size_t>(y) * width + x] = sum > threshold || (sum < 0 && work == 7u);
}
