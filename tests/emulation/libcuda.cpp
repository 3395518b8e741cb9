// A host emulation of the CUDA driver, libcuda.so.1: enough of it that pycuda and cuda.bindings run unmodified, that
// a missing wait, a leak or a wrong address is reported, and that a test decides how long things take and what fails.
//
// One translation unit: it compiles in seconds, once. Everything stands in the file that is named after it.
#include <cctype>
#include <utility>

#include "machine.hpp"
#include "races.hpp"
#include "schedule.hpp"
// The entries of the driver.
#include "api_context.hpp"
#include "api_copy.hpp"
#include "api_graph.hpp"
#include "api_lookup.hpp"
#include "api_memory.hpp"
#include "api_stream.hpp"
#include "control.hpp"
