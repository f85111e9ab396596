// The thread team: the calling thread and a few workers that share the items of one operator after the other.
#pragma once

#include <cstdint>
#include <type_traits>

using TeamFunction = void (*)(void* context, int64_t begin, int64_t end);

// Call function(context, begin, end) for ranges that make up [0, items), on the team if it is free, and return when all are done. Each thread has a
// share of items that lie one behind the other, as long pieces of memory are read fastest, and helps others when its own are done. With
// `in_ranges` a range is half of what is left of a share, so that they become shorter and all threads end at the same time; without, it is one item.
void team_run(int64_t items, bool in_ranges, TeamFunction function, void* context);

// Of items that cost much, or not the same: body(item).
template <class F>
void team_run(int64_t items, F&& body) {
  team_run(items, false, [](void* context, int64_t begin, int64_t end) {
    for (; begin < end; ++begin) (*static_cast<std::remove_reference_t<F>*>(context))(begin);
  }, &body);
}

// Of many small ones: body(begin, end).
template <class F>
void team_run_ranges(int64_t items, F&& body) {
  team_run(items, true, [](void* context, int64_t begin, int64_t end) { (*static_cast<std::remove_reference_t<F>*>(context))(begin, end); }, &body);
}

int team_size();
// Of the calling thread among those that share an operator, from 0.
int team_number();
// At least 1. Takes effect at the next operator; not while another thread is at one.
void set_team_size(int threads);

// Memory of the calling thread, aligned to 64 bytes, kept until the thread's next call with the same purpose.
enum class Purpose { packed_rows, attention, items, chain, found, sampling, count };
void* scratch(Purpose purpose, int64_t bytes);
