// Many operators of few and of many items on a team that is larger than the machine, so that workers come late: each item is done once. Run by test_team.py
// under ThreadSanitizer. Prints what went wrong.
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "team.h"

int main() {
  constexpr int kOperators = 20000, kMostItems = 3000;
  std::mt19937 random(0);
  std::vector<int> times(kMostItems);  // not atomic: a later operator must see what threads wrote in an earlier one
  for (int i = 0; i < kOperators; ++i) {
    if (i % 4000 == 0) set_team_size(2 + static_cast<int>(random() % 5));
    const int64_t items = random() % (i % 2 ? 7 : kMostItems) + 1;
    if (i % 3) {
      team_run_ranges(items, [&](int64_t begin, int64_t end) {
        for (; begin < end; ++begin) ++times[begin];
      });
    } else {
      team_run(items, [&](int64_t item) { ++times[item]; });
    }
    for (int64_t item = 0; item < items; ++item) {
      if (times[item] != 1) return std::printf("operator %d: item %d of %d was done %d times\n", i, static_cast<int>(item), static_cast<int>(items), times[item]), 1;
      times[item] = 0;
    }
  }
  return 0;
}
