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
#include "kernels.h"
#include "team.h"

namespace {

struct Launch {
  Operator op;
  int inputs;
  std::vector<void*> params;
  std::vector<int> ndims;
  std::vector<std::vector<int64_t>> dims;
  std::vector<int64_t*> shapes;
  std::vector<const char*> dtypes;
  std::vector<int64_t> row_bytes;  // of each param, 0 if it is not rows; none of an operator that does not treat each row by itself
  int64_t rows = 0;                // of such an operator
  uint32_t rounded;                // see Traits

  void* count() const { return params[inputs - 1]; }
  int call(void* const* its_params, int64_t* const* its_shapes) const {
    return op(static_cast<int>(params.size()), const_cast<void**>(its_params), const_cast<int*>(ndims.data()), const_cast<int64_t**>(its_shapes),
              const_cast<const char**>(dtypes.data()), nullptr, nullptr);
  }
};

// Launches in [begin, end) treat each row by itself: some rows go through all of them before the next, so that what one writes is still in a core's
// cache when the next reads it.
struct Chain {
  size_t begin, end;
  int64_t row_bytes;  // of what nobody reads outside of it
};
constexpr int64_t kRowsOfBlock = 256;  // with fewer, each thread reads all weights for too little work
constexpr int kMaxParams = 16, kMaxDims = 8;

// An output of an operator. MindSpore lends the same memory to one after the other; here each has an identity, and a place of its own for
// as long as a later operator, or the caller, reads it.
struct Buffer {
  int64_t bytes;       // of one row, if it is a chain's own
  size_t first, last;  // launches that write and that last read it
  bool of_chain;       // it lies in memory of the thread that writes and reads it, some rows of it at a time
  int64_t offset;      // in the capture's memory, or for each row of a block in that of the chain
};

constexpr int64_t kAlignment = 64;

// A name that outlives the graph.
const char* lasting(const char* dtype) {
  for (const char* name : {"float32", "int32", "bfloat16", "float16", "int8"})
    if (!std::strcmp(name, dtype)) return name;
  return nullptr;
}

// Buffers come in the order in which they are written: each takes the lowest gap between those that are still read. Returns what all take.
int64_t assign_offsets(const std::vector<Buffer*>& buffers) {
  std::vector<const Buffer*> live;  // by offset
  int64_t size = 0;
  for (Buffer* buffer : buffers) {
    live.erase(std::remove_if(live.begin(), live.end(), [&](const Buffer* other) { return other->last < buffer->first; }), live.end());
    int64_t offset = 0;
    auto next = live.begin();
    for (; next != live.end() && offset + buffer->bytes > (*next)->offset; ++next) offset = (*next)->offset + (*next)->bytes;
    buffer->offset = offset;
    live.insert(next, buffer);
    size = std::max(size, offset + buffer->bytes);
  }
  return size;
}

// Of activations, which are never int8.
int64_t row_bytes(const std::vector<int64_t>& dims, const char* dtype) {
  int64_t bytes = std::strstr(dtype, "16") ? 2 : 4;
  for (size_t i = 1; i < dims.size(); ++i) bytes *= dims[i];
  return bytes;
}

int64_t aligned(int64_t bytes) { return whole(std::max<int64_t>(bytes, 1), kAlignment); }

}  // namespace

class Capture {
 public:
  ~Capture() {
    if (memory_) munmap(memory_, static_cast<size_t>(size_));
  }

  void add(Operator op, const Traits& traits, int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes) {
    Launch launch;
    launch.op = op;
    launch.inputs = traits.inputs;
    launch.rounded = traits.rounded;
    launch.params.assign(params, params + nparam);
    launch.ndims.assign(ndims, ndims + nparam);
    for (int i = 0; i < nparam; ++i) {
      launch.dims.emplace_back(shapes[i], shapes[i] + ndims[i]);
      launch.dtypes.push_back(lasting(dtypes[i]));
      complete_ &= launch.dtypes.back() != nullptr;
    }
    if (traits.rows && nparam <= kMaxParams) {
      launch.row_bytes.assign(nparam, 0);
      for (int i = 0; i < nparam; ++i) {
        if (i < traits.inputs ? !(traits.rows >> i & 1) : launch.dims[i][0] != launch.rows) continue;
        launch.rows = launch.dims[i][0];
        launch.row_bytes[i] = row_bytes(launch.dims[i], dtypes[i]);
      }
    }
    launches_.push_back(std::move(launch));
  }

  // Give every output its place, and let the operators that read it find it there.
  bool place(const void* const* results, int count) {
    std::map<const void*, size_t> latest;  // address in the captured run -> the output that it holds
    if (!complete_ || launches_.empty()) return false;
    for (size_t i = 0; i < launches_.size(); ++i) {
      Launch& launch = launches_[i];
      places_.emplace_back();
      for (int p = 0; p < static_cast<int>(launch.params.size()); ++p) {
        launch.shapes.push_back(launch.dims[p].data());
        if (p >= launch.inputs) {
          latest[launch.params[p]] = buffers_.size();
          buffers_.push_back({0, i, i, false, 0});
        }
        // What no operator wrote is a parameter, a constant or an input of the graph, and stays where it is.
        const auto found = latest.find(launch.params[p]);
        if (found == latest.end()) continue;
        buffers_[found->second].last = i;
        places_[i].push_back({p, found->second});
      }
    }
    for (int r = 0; r < count; ++r) {
      const auto found = latest.find(results[r]);
      if (found == latest.end()) return false;
      buffers_[found->second].last = launches_.size();
      results_.push_back(found->second);
    }
    round_rows();
    for (size_t i = 0; i < launches_.size(); ++i)
      for (const Place& place : places_[i])
        if (const Launch& launch = launches_[i]; place.param >= launch.inputs)
          buffers_[place.buffer].bytes = aligned(whole(launch.dims[place.param][0], kernels().tile) * row_bytes(launch.dims[place.param], launch.dtypes[place.param]));
    find_chains();
    std::vector<Buffer*> shared;
    for (Buffer& buffer : buffers_)
      if (!buffer.of_chain) shared.push_back(&buffer);
    size_ = assign_offsets(shared);
    void* memory = mmap(nullptr, static_cast<size_t>(size_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
    memory_ = static_cast<char*>(memory);
    for (size_t i = 0; i < launches_.size(); ++i)
      for (const Place& place : places_[i]) launches_[i].params[place.param] = memory_ + buffers_[place.buffer].offset;
    return true;
  }

  void* result(int i) const { return memory_ + buffers_[results_[i]].offset; }

  int launch() const {
    auto chain = chains_.begin();
    for (size_t i = 0; i < launches_.size();) {
      const bool chained = chain != chains_.end() && chain->begin == i;
      if (int failed = chained ? run(*chain) : launches_[i].call(launches_[i].params.data(), launches_[i].shapes.data())) return failed;
      i = chained ? chain++->end : i + 1;
    }
    return 0;
  }

 private:
  struct Place {  // of a param
    int param;
    size_t buffer;
  };

  // What nobody but products reads that would round it is written rounded.
  void round_rows() {
    if (!kernels().rounds_rows) return;
    std::vector<bool> may(buffers_.size(), true);
    for (size_t result : results_) may[result] = false;
    for (size_t i = 0; i < launches_.size(); ++i)
      for (const auto& [param, buffer] : places_[i]) may[buffer] = may[buffer] && may_be_rounded(launches_[i], param);
    for (size_t i = 0; i < launches_.size(); ++i)
      for (const auto& [param, buffer] : places_[i]) {
        Launch& launch = launches_[i];
        if (!may[buffer]) continue;
        launch.dtypes[param] = lasting("bfloat16");
        if (!launch.row_bytes.empty()) launch.row_bytes[param] = row_bytes(launch.dims[param], launch.dtypes[param]);
      }
  }

  static bool may_be_rounded(const Launch& launch, int param) {
    const bool is_product = param < launch.inputs;
    return launch.rounded >> param & 1 && launch.dims[param].back() % kRoundedColumns == 0 && (!is_product || launch.dtypes[1] == lasting("bfloat16"));
  }

  // Of launches with so many rows that threads can have some each: as many in turn as treat the same rows, each by itself.
  void find_chains() {
    for (size_t begin = 0, end; begin < launches_.size(); begin = std::max(end, begin + 1)) {
      const int64_t rows = launches_[begin].rows;
      for (end = begin; rows > kRowsOfBlock && end < launches_.size() && continues(begin, end); ++end) {
      }
      if (end - begin > 1) make_chain(begin, end);
    }
  }

  bool continues(size_t begin, size_t next) const {
    const Launch& launch = launches_[next];
    if (launch.rows != launches_[begin].rows || launch.count() != launches_[begin].count()) return false;
    return std::none_of(places_[next].begin(), places_[next].end(), [&](const Place& place) {
      return place.param < launch.inputs && buffers_[place.buffer].first >= begin && !launch.row_bytes[place.param];
    });
  }

  void make_chain(size_t begin, size_t end) {
    std::vector<Buffer*> own;
    for (size_t i = begin; i < end; ++i)
      for (const Place& place : places_[i]) {
        Buffer& buffer = buffers_[place.buffer];
        const bool is_written = place.param >= launches_[i].inputs;
        if (is_written && buffer.last < end && launches_[i].row_bytes[place.param]) {
          buffer.of_chain = true;
          buffer.bytes = aligned(launches_[i].row_bytes[place.param]);
          own.push_back(&buffer);
        } else if (!buffer.of_chain) {  // one thread may write it while another is at the chain's beginning, or at its end
          if (is_written) buffer.first = begin;
          buffer.last = std::max(buffer.last, end - 1);
        }
      }
    chains_.push_back({begin, end, assign_offsets(own)});
  }

  int run(const Chain& chain) const {
    const Launch& first = launches_[chain.begin];
    const int64_t count = std::clamp<int64_t>(*static_cast<const int32_t*>(first.count()), 0, first.rows), threads = team_size();
    // Few rows go through each operator at once, on all threads.
    if (count <= std::max(kRowsOfBlock / 2 * threads, kRowsOfBlock)) return run_block(chain, 0, count);
    const int64_t blocks = ((count + kRowsOfBlock - 1) / kRowsOfBlock + threads - 1) / threads * threads;
    const auto begin_of = [&](int64_t block) { return tile_begin(count, blocks, block, kernels().tile); };
    std::atomic<int> failed{0};
    team_run(blocks, [&](int64_t block) {
      if (const int code = run_block(chain, begin_of(block), begin_of(block + 1))) failed.store(code, std::memory_order_relaxed);
    });
    return failed.load();
  }

  // All launches of a chain, for rows [begin, end).
  int run_block(const Chain& chain, int64_t begin, int64_t end) const {
    int32_t count = static_cast<int32_t>(end - begin);
    const int64_t room = whole(count, kernels().tile);
    char* const own = static_cast<char*>(scratch(Purpose::chain, chain.row_bytes * room));
    for (size_t i = chain.begin; i < chain.end; ++i) {
      const Launch& l = launches_[i];
      void* params[kMaxParams];
      int64_t *shapes[kMaxParams], dims[kMaxParams][kMaxDims];
      for (size_t p = 0; p < l.params.size(); ++p) {
        params[p] = l.params[p], shapes[p] = l.shapes[p];
        if (!l.row_bytes[p]) continue;
        params[p] = static_cast<char*>(params[p]) + begin * l.row_bytes[p];
        std::copy(l.dims[p].begin(), l.dims[p].end(), dims[p]);
        dims[p][0] = count;
        shapes[p] = dims[p];
      }
      for (const Place& place : places_[i])
        if (const Buffer& buffer = buffers_[place.buffer]; buffer.of_chain) params[place.param] = own + buffer.offset * room;
      params[l.inputs - 1] = &count;
      if (int failed = l.call(params, shapes)) return failed;
    }
    return 0;
  }

  std::vector<Launch> launches_;
  std::vector<std::vector<Place>> places_;  // of each launch's params that are buffers
  std::vector<Chain> chains_;
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

int launch(Operator op, const Traits& traits, int nparam, void** params, int* ndims, int64_t** shapes, const char** dtypes, void* stream, void* extra) {
  if (is_under_way.load(std::memory_order_acquire)) {
    std::lock_guard<std::mutex> holding(lock);
    if (under_way) under_way->add(op, traits, nparam, params, ndims, shapes, dtypes);
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
