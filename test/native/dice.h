// Numbers that look diced, and are the same again for the same seed.
#pragma once

#include <cstdint>

// splitmix64
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  uint64_t bits() {
    uint64_t mixed = state_ += 0x9e3779b97f4a7c15;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    return mixed ^ mixed >> 31;
  }
  uint32_t below(uint32_t limit) { return static_cast<uint32_t>(bits() % limit); }
  bool one_in(uint32_t n) { return below(n) == 0; }

 private:
  uint64_t state_;
};
