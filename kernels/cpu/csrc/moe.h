// Mixtures of experts: which experts a token goes to, and the sum of what they answer.

inline void add(const float* x1, const float* x2, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = x1[i] + x2[i];
}

// Each row by the sigmoid of its own gate.
inline void sigmoid_mul(const float* x, const float* gate, int64_t width, int64_t begin, int64_t end, float* out) {
  for (int64_t row = begin; row < end; ++row) {
    const float factor = 1.0f / (1.0f + exp_of(splat(-gate[row]))[0]);
    for (int64_t j = row * width; j < (row + 1) * width; ++j) out[j] = x[j] * factor;
  }
}

// Scores of one token, with zeros behind the last up to a whole vector.
inline void score_experts(const Gating& op, const float* logits, float* scores) {
  const int64_t padded = (op.experts + kLanes - 1) / kLanes * kLanes;
  memcpy(scores, logits, op.experts * sizeof(float));
  if (op.sigmoid) {
    memset(scores + op.experts, 0, (padded - op.experts) * sizeof(float));
    for (int64_t e = 0; e < padded; e += kLanes) store(scores + e, 1.0f / (1.0f + exp_of(-load<Floats>(scores + e))));
    return;
  }
  for (int64_t e = op.experts; e < padded; ++e) scores[e] = -__builtin_inff();
  Floats best = splat(-__builtin_inff()), sum = {};
  for (int64_t e = 0; e < padded; e += kLanes) best = max_of(best, load<Floats>(scores + e));
  const float largest = largest_of(best);
  for (int64_t e = 0; e < padded; e += kLanes) {
    const Floats exponential = exp_of(load<Floats>(scores + e) - largest);
    store(scores + e, exponential);
    sum += exponential;
  }
  const float factor = 1.0f / sum_of(sum);
  for (int64_t e = 0; e < padded; e += kLanes) store(scores + e, load<Floats>(scores + e) * factor);
}

// Take the experts of all but the best groups out of the choice.
inline void limit_groups(const Gating& op, float* choice) {
  const int64_t size = op.experts / op.groups;
  float group_scores[kMaxExperts], left[kMaxExperts];
  for (int64_t g = 0; g < op.groups; ++g) {
    memcpy(left, choice + g * size, size * sizeof(float));
    group_scores[g] = 0.0f;
    for (int64_t i = 0; i < op.group_scores; ++i) {
      const int64_t best = argmax(left, size);
      group_scores[g] += left[best];
      left[best] = -__builtin_inff();
    }
  }
  bool kept[kMaxExperts] = {};
  for (int64_t i = 0; i < op.chosen_groups; ++i) {
    const int64_t best = argmax(group_scores, op.groups);
    kept[best] = true;
    group_scores[best] = -__builtin_inff();
  }
  for (int64_t e = 0; e < op.experts; ++e)
    if (!kept[e / size]) choice[e] = -__builtin_inff();
}

inline void gating(const Gating& op, int64_t begin, int64_t end) {
  float scores[kMaxExperts + kLanes], choice[kMaxExperts];
  for (int64_t row = begin; row < end; ++row) {
    score_experts(op, op.logits + row * op.experts, scores);
    for (int64_t e = 0; e < op.experts; ++e) choice[e] = op.bias ? scores[e] + op.bias[e] : scores[e];
    if (op.chosen_groups < op.groups) limit_groups(op, choice);
    float* weights = op.weights + row * op.chosen;
    int32_t* experts = op.experts_out + row * op.chosen;
    float sum = 0.0f;
    for (int64_t i = 0; i < op.chosen; ++i) {
      experts[i] = argmax(choice, op.experts);
      choice[experts[i]] = -__builtin_inff();
      weights[i] = scores[experts[i]];
      sum += weights[i];
    }
    const float divisor = op.normalize ? sum + 1e-20f : 1.0f;
    for (int64_t i = 0; i < op.chosen; ++i) weights[i] = weights[i] / divisor * op.scale;
  }
}

// The weighted sum of each token's answers, in the order in which its experts were chosen.
inline void unpermute(const Unpermute& op, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    float* out = op.out + row * op.width;
    memset(out, 0, op.width * sizeof(float));
    for (int64_t i = row * op.chosen; i < (row + 1) * op.chosen; ++i) {
      const float* x = op.x + most(0, least(op.positions[i], op.x_rows - 1)) * op.width;
      const float weight = op.weights[i];
      for (int64_t j = 0; j < op.width; ++j) out[j] += weight * x[j];
    }
  }
}
