// The draw of a token from each row of logits.
#pragma once

#include <cstdint>

struct Sampling {
  const float* logits;     // [rows, vocabulary]
  int64_t rows, vocabulary;
  const float* temperature;  // [rows], above 0; null: 1
  const int32_t* top_k;      // [rows]; null: all
  const float* top_p;        // [rows]; null: 1
  const float* min_p;        // [rows]; null: 0
  const double* uniform;     // [rows], in [0, 1)
  int64_t* tokens;           // [rows]
};

// tokens[r] is the first token up to which the probabilities of row r exceed uniform[r], in the order of the vocabulary. Probabilities are the
// softmax of logits / temperature over what is left of the vocabulary: the top_k best and those that equal the last of them; of these the fewest best
// that hold top_p of the probability; of these the ones that are at least min_p times as likely as the best, which is always left.
void sample(const Sampling& op);
