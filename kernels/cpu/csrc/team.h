// The thread team: the calling thread and a few workers that share the items of one operator after the other.
#pragma once

#include <cstdint>

using TeamFunction = void (*)(void* context, int64_t item);

// Call function(context, i) for each i in [0, items), on the team if it is free, and return when all are done. Each thread has a share of items that
// lie one behind the other, as long pieces of memory are read fastest, and helps others when its own are done.
void team_run(int64_t items, TeamFunction function, void* context);

// As above for anything callable.
template <class F>
void team_run(int64_t items, F&& body) {
  team_run(items, [](void* context, int64_t item) { (*static_cast<F*>(context))(item); }, &body);
}

int team_size();
// At least 1. Takes effect at the next operator.
void set_team_size(int threads);

// Memory of the calling thread, aligned to 64 bytes, kept until the thread's next call with the same purpose.
enum class Purpose { packed_rows, attention, items, count };
void* scratch(Purpose purpose, int64_t bytes);
