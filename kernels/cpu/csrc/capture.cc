#include "capture.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "float_mode.h"

namespace {

struct Launch {
  Operator op;
  int inputs;
  std::vector<void*> params;
  std::vector<int> ndims;
  std::vector<std::vector<int64_t>> dims;
  std::vector<int64_t*> shapes;
  std::vector<const char*> dtypes;
};

// An output of an operator. MindSpore lends the same memory to one after the other; here each has an identity, and a place of its own for
// as long as a later operator, or the caller, reads it.
struct Buffer {
  int64_t bytes;
  size_t first, last;  // launches that write and that last read it
  int64_t offset;
};

constexpr int64_t kAlignment = 64;

// A name that outlives the graph.
const char* lasting(const char* dtype) {
  for (const char* name : {"float32", "int32", "bfloat16", "float16", "int8"})
    if (!std::strcmp(name, dtype)) return name;
  return nullptr;
}

// Of an output, which is never int8.
int64_t bytes_of(const std::vector<int64_t>& dims, const char* dtype) {
  int64_t bytes = std::strstr(dtype, "16") ? 2 : 4;
  for (int64_t dim : dims) bytes *= dim;
  return (std::max<int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

class Capture {
 public:
  ~Capture() {
    if (memory_) munmap(memory_, static_cast<size_t>(size_));
  }

  void add(Operator op, int inputs, int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes) {
    Launch launch;
    launch.op = op;
    launch.inputs = inputs;
    launch.params.assign(params, params + nparam);
    launch.ndims.assign(ndims, ndims + nparam);
    for (int i = 0; i < nparam; ++i) {
      launch.dims.emplace_back(shapes[i], shapes[i] + ndims[i]);
      launch.dtypes.push_back(lasting(dtypes[i]));
      complete_ &= launch.dtypes.back() != nullptr;
    }
    launches_.push_back(std::move(launch));
  }

  // Give every output its place, and let the operators that read it find it there.
  bool place(const void* const* results, int count) {
    std::map<const void*, size_t> latest;  // address in the captured run -> the output that it holds
    std::vector<std::vector<std::pair<int, size_t>>> params(launches_.size());  // of each launch: a param and its buffer
    if (!complete_ || launches_.empty()) return false;
    for (size_t i = 0; i < launches_.size(); ++i) {
      Launch& launch = launches_[i];
      for (int p = 0; p < static_cast<int>(launch.params.size()); ++p) {
        launch.shapes.push_back(launch.dims[p].data());
        if (p >= launch.inputs) {
          latest[launch.params[p]] = buffers_.size();
          buffers_.push_back({bytes_of(launch.dims[p], launch.dtypes[p]), i, i, 0});
        }
        // What no operator wrote is a parameter, a constant or an input of the graph, and stays where it is.
        const auto found = latest.find(launch.params[p]);
        if (found == latest.end()) continue;
        buffers_[found->second].last = i;
        params[i].emplace_back(p, found->second);
      }
    }
    for (int r = 0; r < count; ++r) {
      const auto found = latest.find(results[r]);
      if (found == latest.end()) return false;
      buffers_[found->second].last = launches_.size();
      results_.push_back(found->second);
    }
    assign_offsets();
    void* memory = mmap(nullptr, static_cast<size_t>(size_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
    memory_ = static_cast<char*>(memory);
    for (size_t i = 0; i < launches_.size(); ++i)
      for (const auto& [param, buffer] : params[i]) launches_[i].params[param] = memory_ + buffers_[buffer].offset;
    return true;
  }

  void* result(int i) const { return memory_ + buffers_[results_[i]].offset; }

  int launch() const {
    for (const Launch& l : launches_)
      if (int failed = l.op(static_cast<int>(l.params.size()), const_cast<void**>(l.params.data()), const_cast<int*>(l.ndims.data()),
                            const_cast<int64_t**>(l.shapes.data()), const_cast<const char**>(l.dtypes.data()), nullptr, nullptr))
        return failed;
    return 0;
  }

 private:
  // Buffers come in the order in which they are written: each takes the lowest gap between those that are still read.
  void assign_offsets() {
    std::vector<Buffer*> live;  // by offset
    for (Buffer& buffer : buffers_) {
      live.erase(std::remove_if(live.begin(), live.end(), [&](const Buffer* other) { return other->last < buffer.first; }), live.end());
      int64_t offset = 0;
      auto next = live.begin();
      for (; next != live.end() && offset + buffer.bytes > (*next)->offset; ++next) offset = (*next)->offset + (*next)->bytes;
      buffer.offset = offset;
      live.insert(next, &buffer);
      size_ = std::max(size_, offset + buffer.bytes);
    }
  }

  std::vector<Launch> launches_;
  std::vector<Buffer> buffers_;
  std::vector<size_t> results_;
  bool complete_ = true;
  char* memory_ = nullptr;
  int64_t size_ = 0;
};

namespace {
std::mutex lock;
std::unique_ptr<Capture> under_way;
std::atomic<bool> is_under_way{false};
}  // namespace

int launch(Operator op, int inputs, int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes, void* stream, void* extra) {
  if (is_under_way.load(std::memory_order_acquire)) {
    std::lock_guard<std::mutex> holding(lock);
    if (under_way) under_way->add(op, inputs, nparam, params, ndims, shapes, dtypes);
  }
  const ExactFloats mode;
  return op(nparam, params, ndims, shapes, dtypes, stream, extra);
}

void capture_begin() {
  std::lock_guard<std::mutex> holding(lock);
  under_way = std::make_unique<Capture>();
  is_under_way.store(true, std::memory_order_release);
}

Capture* capture_end(const void* const* results, int count) {
  std::lock_guard<std::mutex> holding(lock);
  is_under_way.store(false, std::memory_order_release);
  std::unique_ptr<Capture> done = std::move(under_way);
  return done && done->place(results, count) ? done.release() : nullptr;
}

void* capture_result(const Capture& capture, int result) { return capture.result(result); }
int capture_launch(const Capture& capture) {
  const ExactFloats mode;
  return capture.launch();
}
void capture_free(Capture* capture) { delete capture; }
