// Nothing is sorted but the few tokens around a bound: to sort a vocabulary of 49152 takes torch 4 ms, all of this 0.1 to 0.2.
#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels.h"
#include "team.h"

namespace {
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kBlock = 256;  // tokens whose weights are summed first

struct Candidate {
  float logit;
  int32_t token;
};

// The less likely first, and of equals the first.
bool operator<(const Candidate& a, const Candidate& b) { return a.logit < b.logit || (a.logit == b.logit && a.token < b.token); }

// Tokens are counted in buckets of how far their logits are below the best, 32 to a power of two: exact for the order of any two tokens in
// different buckets, and fine enough that few share one.
constexpr int kBucketShift = 18, kBuckets = 1 << (31 - kBucketShift);

int bucket_of(float best, float logit) {
  const float below = best - logit;
  uint32_t bits;
  std::memcpy(&bits, &below, sizeof bits);
  return (bits & 0x7fffffffu) >> kBucketShift;
}

struct Buckets {
  int32_t count[kBuckets];
  double mass[kBuckets];
};

// What a row is drawn from: tokens that come after `floor` in the order of Candidates.
struct Row {
  const float* logits;
  int64_t vocabulary;
  float best;
  float* weight;  // e^((logit - best) / temperature)
  Buckets* buckets;
  Candidate* room;  // [vocabulary]
  Candidate floor = {-kInfinity, std::numeric_limits<int32_t>::max()};
  int lowest = kBuckets - 1;  // the last bucket that holds a token to draw

  // Those of a bucket that are after the floor, in `room`.
  Candidate* candidates_of(int bucket) const {
    Candidate* end = room;
    for (int64_t i = 0; i < vocabulary; ++i)
      if (bucket_of(best, logits[i]) == bucket) {
        const Candidate found = {logits[i] == logits[i] ? logits[i] : -kInfinity, static_cast<int32_t>(i)};
        if (floor < found) *end++ = found;
      }
    return end;
  }

  void fill_buckets() {
    std::memset(buckets, 0, sizeof *buckets);
    for (int64_t i = 0; i < vocabulary; ++i) {
      const int bucket = bucket_of(best, logits[i]);
      ++buckets->count[bucket];
      buckets->mass[bucket] += weight[i];
    }
  }

  void keep_most_likely(int64_t k) {
    int64_t before = 0;
    int bucket = 0;
    while (before + buckets->count[bucket] < k) before += buckets->count[bucket++];
    lowest = bucket;
    Candidate* const end = candidates_of(bucket);
    if (end == room) return;  // all that is left is masked
    Candidate* const last = end - std::min<int64_t>(end - room, k - before);
    std::nth_element(room, last, end);
    floor = {last->logit, -1};  // its equals are kept
    buckets->mass[bucket] = 0;
    for (const Candidate* c = room; c < end; ++c)
      if (floor < *c) buckets->mass[bucket] += weight[c->token];
  }

  void keep_mass(double p) {
    double dropped = 0;
    for (int bucket = 0; bucket <= lowest; ++bucket) dropped += buckets->mass[bucket];
    const double most = (1 - p) * dropped;
    dropped = 0;
    while (lowest > 0 && dropped + buckets->mass[lowest] <= most) dropped += buckets->mass[lowest--];
    Candidate* const end = candidates_of(lowest);
    std::sort(room, end);
    floor = {room->logit, room->token - 1};
    for (const Candidate* c = room; c + 1 < end && (dropped += weight[c->token]) <= most; ++c) floor = *c;
  }

  void drop_weights(float least) {
    for (int64_t i = 0; i < vocabulary; ++i) {
      const bool kept = floor < Candidate{logits[i], static_cast<int32_t>(i)} && weight[i] >= least;
      weight[i] = kept ? weight[i] : 0.0f;
    }
  }

  // The first token up to which the weights exceed this part of their sum; -1 if they have none.
  int64_t token_at(double part, double* sums) const {
    constexpr int64_t kAtOnce = 8;
    const int64_t blocks = (vocabulary + kBlock - 1) / kBlock;
    double total = 0;
    for (int64_t block = 0; block < blocks; ++block) {
      double partial[kAtOnce] = {};
      const int64_t begin = block * kBlock, end = std::min(begin + kBlock, vocabulary), whole = begin + (end - begin) / kAtOnce * kAtOnce;
      for (int64_t i = begin; i < whole; i += kAtOnce)
        for (int64_t j = 0; j < kAtOnce; ++j) partial[j] += weight[i + j];
      for (int64_t i = whole; i < end; ++i) partial[0] += weight[i];
      sums[block] = 0;
      for (double sum : partial) sums[block] += sum;
      total += sums[block];
    }
    if (!(total > 0 && total < std::numeric_limits<double>::infinity())) return -1;
    double left = part * total;
    int64_t found = -1;  // the last that has a weight, where rounding leads past the end
    for (int64_t block = 0; block < blocks; ++block) {
      if (sums[block] <= 0) continue;
      const int64_t end = std::min((block + 1) * kBlock, vocabulary);
      if (left >= sums[block] && block + 1 < blocks) {
        left -= sums[block];
        found = end - 1;
        continue;
      }
      for (int64_t i = block * kBlock; i < end; ++i)
        if (weight[i] > 0) {
          found = i;
          if ((left -= weight[i]) < 0) return i;
        }
    }
    while (!(weight[found] > 0)) --found;
    return found;
  }
};

int64_t draw(const Sampling& op, int64_t r) {
  // Weights and block sums, buckets, and candidates.
  const int64_t floats = whole_vectors(op.vocabulary), sums = op.vocabulary / kBlock + 1;
  char* const memory = static_cast<char*>(
      scratch(Purpose::sampling, floats * sizeof(float) + sums * sizeof(double) + sizeof(Buckets) + op.vocabulary * sizeof(Candidate)));
  Row row = {};
  row.logits = op.logits + r * op.vocabulary;
  row.vocabulary = op.vocabulary;
  row.weight = reinterpret_cast<float*>(memory);
  double* const block_sums = reinterpret_cast<double*>(row.weight + floats);
  row.buckets = reinterpret_cast<Buckets*>(block_sums + sums);
  row.room = reinterpret_cast<Candidate*>(row.buckets + 1);
  const int32_t likeliest = kernels().argmax(row.logits, op.vocabulary);
  row.best = row.logits[likeliest];
  if (!std::isfinite(row.best)) return likeliest;
  kernels().exponentials(row.logits, op.vocabulary, row.best, op.temperature ? op.temperature[r] : 1.0f, row.weight);
  const int64_t k = op.top_k && op.top_k[r] > 0 ? op.top_k[r] : op.vocabulary;
  const float p = op.top_p ? op.top_p[r] : 1.0f, least = op.min_p ? op.min_p[r] : 0.0f;
  const bool bounded = k < op.vocabulary || p < 1;
  if (bounded) row.fill_buckets();
  if (k < op.vocabulary) row.keep_most_likely(k);
  if (p < 1) row.keep_mass(p);
  if (bounded || least > 0) row.drop_weights(least);
  const int64_t token = row.token_at(op.uniform[r], block_sums);
  return token < 0 ? likeliest : token;
}
}  // namespace

void sample(const Sampling& op) {
  team_run(op.rows, [&](int64_t r) { op.tokens[r] = draw(op, r); });
}
