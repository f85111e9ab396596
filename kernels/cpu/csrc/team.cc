#include "team.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "float_mode.h"

namespace {

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Of the threads of a team; the one that runs an operator is the first.
thread_local int own_number = 0;
thread_local bool at_work = false;  // on an item, of which what it shares out is a part

class Team {
 public:
  explicit Team(int size) : size_(size) {}
  ~Team() { stop(); }

  int size() const { return size_; }

  void resize(int threads) {
    std::lock_guard<std::mutex> turn(turn_);
    stop();
    size_ = threads < 1 ? 1 : threads;
  }

  void run(int64_t items, bool in_ranges, TeamFunction function, void* context) {
    if (at_work || size_ == 1) return function(context, 0, items);
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) return function(context, 0, items);
    start();
    function_ = function;
    context_ = context;
    const uint64_t generation = (call_.load(std::memory_order_relaxed) >> 32) + 1;
    const uint64_t call = generation << 32 | static_cast<uint64_t>(items) << 1 | in_ranges;
    call_.store(call, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst)) {
      { std::lock_guard<std::mutex> lock(sleep_); }
      wake_.notify_all();
    }
    done_by_workers_ += items - work(call);
    // A worker that the machine has taken off its core comes back sooner if this core is offered to it.
    for (int looks = 0; done_.load(std::memory_order_acquire) != done_by_workers_; ++looks) looks < kLooks ? pause_briefly() : void(sched_yield());
  }

 private:
  // Workers look for work this long before they sleep: longer than the gap between two operators of a graph.
  static constexpr std::chrono::microseconds kPatience{60};
  static constexpr int kLooks = 2048;  // some 50 us

  void start() {
    if (!workers_.empty()) return;
    stopping_.store(false);
    shares_ = std::vector<Share>(size_);
    try {
      for (int i = 1; i < size_; ++i)
        workers_.emplace_back([this, i, call = call_.load(std::memory_order_relaxed)] {
          own_number = i;
          serve(call);
        });
    } catch (const std::system_error&) {  // no more threads are to be had: those that are there take the shares of the others
    }
  }

  void stop() {
    if (workers_.empty()) return;
    {
      std::lock_guard<std::mutex> lock(sleep_);
      stopping_.store(true);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  // Takes items until none is left, and returns how many it did. A worker may be late, at a call that has ended: of which call it was last taken from, a
  // share tells, and none that had items then is untouched.
  int64_t work(uint64_t call) {
    const int64_t items = static_cast<uint32_t>(call) >> 1, size = static_cast<int64_t>(shares_.size());
    const uint64_t generation = call >> 32;
    int64_t done = 0;
    for (int64_t i = 0; i < size; ++i) {
      const int64_t owner = (own_number + i) % size, begin = items * owner / size, end = items * (owner + 1) / size;
      std::atomic<uint64_t>& share = shares_[owner].taken;
      for (uint64_t taken = share.load(std::memory_order_acquire);;) {
        const bool untouched = taken >> 32 != generation;
        if (untouched && call_.load(std::memory_order_acquire) != call) return done;
        const int64_t next = untouched ? begin : begin + static_cast<uint32_t>(taken), left = end - next;
        if (left <= 0) break;
        const int64_t count = call & 1 ? (left + 1) / 2 : 1;
        const uint64_t then = generation << 32 | static_cast<uint64_t>(next + count - begin);
        if (!share.compare_exchange_weak(taken, then, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
        taken = then;
        // The call cannot end before these items are done, so its fields are stable from here on.
        at_work = true;
        function_(context_, next, next + count);
        at_work = false;
        done += count;
      }
    }
    return done;
  }

  // `call` is one that has ended.
  void serve(uint64_t call) {
    const ExactFloats mode;
    const auto is_called = [&] { return call_.load(std::memory_order_seq_cst) != call; };
    while (!stopping_.load(std::memory_order_relaxed)) {
      if (is_called())
        if (const int64_t done = work(call = call_.load(std::memory_order_acquire))) done_.fetch_add(done, std::memory_order_release);
      const auto deadline = std::chrono::steady_clock::now() + kPatience;
      bool found = false;
      while (!found && std::chrono::steady_clock::now() < deadline)
        for (int i = 0; i < 64 && !found; ++i) {
          found = is_called();
          pause_briefly();
        }
      if (found) continue;
      std::unique_lock<std::mutex> lock(sleep_);
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      wake_.wait(lock, [&] { return is_called() || stopping_.load(); });
      sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }
  }

  int size_;
  std::mutex turn_;
  std::vector<std::thread> workers_;
  // What threads write for each other lies apart, and what they read together is in one line: to take one from another core takes up to 0.3 us.
  struct alignas(64) Share {
    std::atomic<uint64_t> taken{0};  // generation of a call, and how many of its items
  };
  std::vector<Share> shares_;
  alignas(64) std::atomic<uint64_t> call_{0};  // its generation, how many items it has, and whether they are taken in ranges
  TeamFunction function_ = nullptr;
  void* context_ = nullptr;
  int64_t done_by_workers_ = 0;               // items of all calls
  alignas(64) std::atomic<int64_t> done_{0};  // likewise, as they get done
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::mutex sleep_;
  std::condition_variable wake_;
};

constexpr std::chrono::microseconds Team::kPatience;

std::atomic<Team*> the_team{nullptr};
int team_size_at_first = 1;
std::mutex making;

// Made at first use. Never destroyed: an operator may still run in another thread while the process exits. A forked child has
// none of its parent's threads, so it gets a team of its own, of the same size. How large it is, Python says as it loads this library.
Team& team() {
  if (Team* made = the_team.load(std::memory_order_acquire)) return *made;
  std::lock_guard<std::mutex> lock(making);
  static const int once = pthread_atfork([] { making.lock(); }, [] { making.unlock(); }, [] {
    if (Team* parents = the_team.exchange(nullptr)) team_size_at_first = parents->size();
    making.unlock();
  });
  static_cast<void>(once);
  if (!the_team.load()) the_team.store(new Team(team_size_at_first), std::memory_order_release);
  return *the_team.load();
}

struct Buffer {
  void* memory = nullptr;
  int64_t bytes = 0;
  ~Buffer() { std::free(memory); }
};

}  // namespace

void team_run(int64_t items, bool in_ranges, TeamFunction function, void* context) {
  if (items <= 0) return;
  if (items == 1) return function(context, 0, 1);
  team().run(items, in_ranges, function, context);
}

int team_size() { return team().size(); }
int team_number() { return own_number; }
void set_team_size(int threads) { team().resize(threads); }

void* scratch(Purpose purpose, int64_t bytes) {
  thread_local Buffer buffers[static_cast<int>(Purpose::count)];
  Buffer& buffer = buffers[static_cast<int>(purpose)];
  if (buffer.bytes < bytes) {
    std::free(buffer.memory);
    buffer.bytes = (bytes + bytes / 4 + 63) / 64 * 64;
    buffer.memory = std::aligned_alloc(64, static_cast<size_t>(buffer.bytes));
    if (!buffer.memory) std::abort();
  }
  return buffer.memory;
}
