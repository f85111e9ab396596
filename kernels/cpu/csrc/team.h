// The thread team: the calling thread and a few workers that share the items of one operator after the other.
#pragma once

#include <cstdint>

using TeamFunction = void (*)(void* context, int64_t item);

enum class Order {
  ascending,  // whoever is free takes the next item
  in_pieces   // each thread takes the next of its own share, and what others have left when that is done: long pieces of memory are read fastest
};

// Call function(context, i) for each i in [0, items), on the team if it is free, and return when all are done.
void team_run(int64_t items, Order order, TeamFunction function, void* context);

// As above for anything callable.
template <class F>
void team_run(int64_t items, Order order, const F& body) {
  team_run(items, order, [](void* context, int64_t item) { (*static_cast<const F*>(context))(item); }, const_cast<F*>(&body));
}
template <class F>
void team_run(int64_t items, const F& body) {
  team_run(items, Order::ascending, body);
}

int team_size();
// At least 1. Takes effect at the next operator.
void set_team_size(int threads);

// Memory of the calling thread, aligned to 64 bytes, kept until the thread's next call with the same purpose.
enum class Purpose { packed_rows, attention, items, count };
void* scratch(Purpose purpose, int64_t bytes);
