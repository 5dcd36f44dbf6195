// The words of the simulated machine: actors, processes, clocks, what may happen in a schedule, and decisions.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

#include "harness.h"
#include "sim_fiber.h"

namespace sim {

constexpr int kActorsMax = 12;
constexpr int kSleepsMax = 4;  // words on which an actor may sleep at once
constexpr uint64_t kForever = ~uint64_t{0};

// Where in the source a step is.
struct Site {
  const char* function;
  const char* file;
  int line;
  static constexpr Site here(const char* function = __builtin_FUNCTION(), const char* file = __builtin_FILE(),
                             int line = __builtin_LINE()) {
    return {function, file, line};
  }
};

class Random {
 public:
  explicit Random(uint64_t seed = 0) : state_(seed * 0x9e3779b97f4a7c15u + 0x1234567u) { next(); }
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((next() >> 32) * n >> 32); }
  bool one_in(uint32_t n) { return below(n) == 0; }
  // Of every magnitude alike.
  uint64_t up_to_power(uint32_t bits) { return 1 + (next() & ((uint64_t{1} << below(bits + 1)) - 1)); }

 private:
  uint64_t state_;
};

// A vector clock: how much of what each actor did is known.
struct Clock {
  uint32_t at[kActorsMax] = {};
  void join(const Clock& other) {
    for (int i = 0; i < kActorsMax; i++) at[i] = at[i] > other.at[i] ? at[i] : other.at[i];
  }
  bool covers(const Clock& other) const {
    for (int i = 0; i < kActorsMax; i++) {
      if (at[i] < other.at[i]) return false;
    }
    return true;
  }
};

enum class State { kUnused, kReady, kAsleep, kStopped, kDone, kDead };

struct Process;

struct Actor {
  Fiber fiber;
  State state = State::kUnused;
  int id = 0;
  Process* process = nullptr;
  void (*body)(Actor&, void*) = nullptr;
  void* argument = nullptr;
  std::array<const void*, kSleepsMax> sleeps_on = {};
  uint64_t until_ns = 0;
  bool idle = false;  // sleeps as a waiter does, not in the middle of an operation
  const void* listens_to =
      nullptr;  // a word on which a thread of the process still sleeps, while this one does another's work
  bool woken = false;     // that thread was woken
  bool outside = false;   // of any operation of the core, though it runs
  bool notified = false;  // what its process told it inside of itself, or the kernel about a death
  uint64_t dies_at = kForever;
  uint32_t fuse = 0;  // dies before this many changes of what others can see; 0: does not
  int mutexes = 0;    // of its process that it has locked
  uint32_t priority = 0;
  std::array<uint64_t, 2> thread_locals = {};  // while it does not run
  uint64_t period_ends_ns = 0;                 // and how many steps it has taken since that began
  uint64_t steps = 0;
  bool sleeps_on_word(const void* word) const {
    return std::find(sleeps_on.begin(), sleeps_on.end(), word) != sleeps_on.end();
  }
  // Memory.
  Clock known;       // happens before its next step
  Clock fenced;      // was known at its last fence
  Clock acquirable;  // would be known after a fence
  uint64_t fenced_at = 0;
  const char* doing = "";
};

// A process: what the kernel knows of it.
struct Process {
  int number = 0;
  bool open = false;        // it lives, and has its token
  bool token_kept = false;  // it is gone, and a child that shares its open files has the token still
  bool dying = false;
  bool execs = false;  // it is gone in that its pid is another program by now
  uint64_t gone_at = kForever;
  int threads = 0;
  uint64_t stopped_until_ns = 0;  // as a whole
  uint64_t stopped_ns = 0;        // when it was last
};

// What may happen in a schedule, apart from switches.
struct Plan {
  bool weak = false;
  uint32_t stale_one_in = 4;  // how often a read that may be old is old
  bool by_priority = false;   // switch only where the priorities change, or somebody has to wait
  uint32_t switch_mean = 64;  // in ticks, if not by priority
  uint32_t priority_changes = 0;
  uint32_t deaths = 0;
  uint32_t stops = 0;
  uint32_t magnitude = 12;  // deaths and stops come after up to 2^magnitude ticks
  bool in_latch = false;    // whoever dies, dies inside the latch
  bool stops_in_latch = false;
  bool long_stops = false;  // long enough to be passed over, and for others to be tired of waiting
  uint64_t longest_stop_ns = 400000000;  // about
  bool spins = false;                    // there are processors enough
  bool blind = false;                    // nobody is told of a death: it has to be asked about
  bool whole_stops = false;              // of processes, rather than of threads
  // Where everybody sleeps, before the time passes, somebody is killed or stopped once in so many times; 0: never.
  uint32_t disturb_one_in = 0;
  bool at_rest = false;  // and never otherwise
  uint64_t shortest_stop_ns = 0;
  uint32_t timer_bits = 0;        // what sleeps until a time sleeps up to 2^timer_bits ns longer
  uint32_t exec_one_in = 0;       // so many of the deaths are another program in the same process
  uint64_t steps_per_period = 0;  // more than so many in 50 ms are a fault; 0: that is not counted
  bool keeps_token = false;       // whoever is gone may have left its token to a child
};

// A list of decisions that is counted through: the next run takes the last one that has alternatives another way.
class Decisions {
 public:
  void begin() { next_ = 0; }
  uint32_t take(uint32_t alternatives) {
    if (next_ == taken_.size()) taken_.push_back({0, alternatives});
    Decision& decision = taken_[next_++];
    if (decision.alternatives != alternatives) {
      fprintf(stderr, "  the same decisions led elsewhere\n");
      abort();
    }
    return decision.chosen;
  }
  // False: all were made.
  bool advance() {
    taken_.resize(next_);
    while (!taken_.empty() && taken_.back().chosen + 1 == taken_.back().alternatives) taken_.pop_back();
    if (taken_.empty()) return false;
    taken_.back().chosen++;
    return true;
  }

 private:
  struct Decision {
    uint32_t chosen, alternatives;
  };
  std::vector<Decision> taken_;
  size_t next_ = 0;
};

// One memory order of the source, made weaker on purpose.
struct Weakening {
  const char* file = nullptr;
  int line = 0;
};

struct OrderSite {
  Site site;
  std::memory_order order;
  char kind;  // as in the trace
};

}  // namespace sim
