// Who waits for whom, as a graph: compared with a search that follows each edge there is, one by one.
#include <functional>
#include <set>

#include "../../native/core/wait_graph.h"
#include "dice.h"
#include "harness.h"

namespace {

using proclock::Mode;
using proclock::WaitGraph;

// All that is in the way of each wait, as the argument in deadlock.h has it.
class Plainly {
 public:
  std::vector<WaitGraph::Wait> waits;
  std::vector<WaitGraph::Hold> holds;
  // Until when a wait has begun that may be said to be of a holder; before the beginning: nothing is guessed.
  double guess_until_ms = -1;

  static bool excludes(Mode a, Mode b) { return a == Mode::kExclusive || b == Mode::kExclusive; }

  bool is_inside(const WaitGraph::Wait& wait, const WaitGraph::Hold& hold) const {
    uint32_t context = wait.context;
    for (int depth = 0; context != 0 && depth < 64; depth++) {
      if (context == hold.context) return true;
      uint32_t outer = 0;
      for (const WaitGraph::Hold& other : holds) {
        if (other.process == wait.process && other.thread == wait.thread && other.context == context)
          outer = other.outer;
      }
      context = outer;
    }
    return false;
  }
  bool owns(const WaitGraph::Wait& wait, const WaitGraph::Hold& hold) const {
    if (wait.process != hold.process || wait.thread != hold.thread) return false;
    return wait.blocks || (hold.context != 0 && is_inside(wait, hold));
  }
  bool may_own(const WaitGraph::Wait& wait, const WaitGraph::Hold& hold) const {
    if (owns(wait, hold)) return true;
    return wait.process == hold.process && wait.thread == hold.thread && wait.lock != hold.lock &&
           wait.since_ms >= hold.since_ms && wait.since_ms <= guess_until_ms &&
           std::none_of(waits.begin(), waits.end(),
                        [&](const WaitGraph::Wait& other) { return owns(other, hold); });
  }
  bool is_in_the_way(const WaitGraph::Wait& of, const WaitGraph::Wait& other) const {
    if (other.lock == of.lock && other.age > of.age && other.is_in_the_way && excludes(of.mode, other.mode))
      return true;
    return std::any_of(holds.begin(), holds.end(), [&](const WaitGraph::Hold& hold) {
      return hold.lock == of.lock && excludes(of.mode, hold.mode) && may_own(other, hold);
    });
  }
  // The waits that can be reached from this one in one step or more.
  std::set<uint32_t> reached_from(uint32_t start, bool certain) const {
    std::set<uint32_t> reached;
    std::vector<uint32_t> open = {start};
    while (!open.empty()) {
      const uint32_t from = open.back();
      open.pop_back();
      for (uint32_t n = 0; n < waits.size(); n++) {
        if (reached.count(n) != 0 || !is_in_the_way(waits[from], waits[n])) continue;
        if (n != start && (waits[n].is_ending || (certain && !waits[n].blocks))) continue;
        reached.insert(n);
        open.push_back(n);
      }
    }
    return reached;
  }
};

Plainly world_of(Dice& dice) {
  Plainly world;
  const uint32_t threads = 1 + dice.below(5);
  const uint32_t locks = 1 + dice.below(4);
  std::vector<bool> blocked(threads, false);
  uint32_t slot = 0;
  const uint32_t count = 1 + dice.below(9);
  for (uint32_t n = 0; n < count; n++) {
    const uint32_t thread = dice.below(threads);
    WaitGraph::Wait wait = {};
    wait.slot = ++slot;
    wait.lock = 1 + dice.below(locks);
    wait.process = 1 + thread / 2;
    wait.thread = thread % 2;
    wait.age = count - n;
    wait.mode = dice.below(2) == 0 ? Mode::kExclusive : Mode::kShared;
    wait.blocks = !blocked[thread] && dice.below(2) == 0;
    if (wait.blocks) blocked[thread] = true;
    wait.context = wait.blocks ? 0 : dice.below(4);
    wait.is_in_the_way = dice.below(6) != 0;
    wait.is_ending = dice.below(12) == 0;
    wait.since_ms = dice.below(8);
    world.waits.push_back(wait);
  }
  // A context is always inside of the same one.
  for (uint32_t n = dice.below(8); n > 0; n--) {
    const uint32_t thread = dice.below(threads);
    WaitGraph::Hold hold = {};
    hold.slot = ++slot;
    hold.lock = 1 + dice.below(locks);
    hold.process = 1 + thread / 2;
    hold.thread = thread % 2;
    hold.context = dice.below(4);
    hold.outer = hold.context == 0 || (thread % 2) != 0 ? 0 : hold.context - 1;
    hold.mode = dice.below(2) == 0 ? Mode::kExclusive : Mode::kShared;
    hold.since_ms = dice.below(8);
    world.holds.push_back(hold);
  }
  return world;
}

WaitGraph graph_of(const Plainly& world) {
  WaitGraph graph;
  for (const auto& wait : world.waits) graph.add(wait);
  for (const auto& hold : world.holds) graph.add(hold);
  graph.link(world.guess_until_ms >= 0, world.guess_until_ms);
  return graph;
}

TEST("a cycle is found exactly where there is one, and is one") {
  uint64_t found = 0, certain_ones = 0;
  for (uint32_t seed = 1; seed <= 200000; seed++) {
    Dice dice(seed);
    const Plainly world = world_of(dice);
    const WaitGraph graph = graph_of(world);
    for (uint32_t n = 0; n < world.waits.size(); n++) {
      for (const bool certain : {true, false}) {
        const WaitGraph::Cycle cycle = graph.cycle_through(world.waits[n].slot, certain);
        const bool expected =
            (!certain || world.waits[n].blocks) && world.reached_from(n, certain).count(n) != 0;
        CHECK_EQ(!cycle.waits.empty(), expected);
        if (!expected) continue;
        found++;
        certain_ones += certain;
        CHECK_EQ(cycle.waits.front(), n);
        CHECK_EQ(std::set<uint32_t>(cycle.waits.begin(), cycle.waits.end()).size(), cycle.waits.size());
        for (size_t at = 0; at < cycle.waits.size(); at++) {
          const auto& from = graph.wait(cycle.waits[at]);
          CHECK(!certain || from.blocks);
          CHECK(world.is_in_the_way(from, graph.wait(cycle.waits[(at + 1) % cycle.waits.size()])));
        }
      }
    }
  }
  CHECK(found > 10000 && certain_ones > 1000);
}

std::set<uint32_t> locks_of(const WaitGraph& graph, size_t threads) {
  std::set<uint32_t> locks;
  for (const uint32_t wait : graph.waits_in_cycles(threads)) locks.insert(graph.wait(wait).lock);
  return locks;
}

TEST("the locks in cycles are those whose waits reach each other") {
  uint64_t found = 0;
  for (uint32_t seed = 1; seed <= 50000; seed++) {
    Dice dice(seed);
    Plainly world = world_of(dice);
    for (auto& wait : world.waits) wait.is_ending = false;
    if (seed % 2 == 0) world.guess_until_ms = dice.below(10);
    const WaitGraph graph = graph_of(world);
    std::set<uint32_t> expected;
    for (uint32_t a = 0; a < world.waits.size(); a++) {
      for (const uint32_t b : world.reached_from(a, false)) {
        if (b == a || world.reached_from(b, false).count(a) == 0) continue;
        expected.insert(world.waits[a].lock);
      }
    }
    CHECK(locks_of(graph, 1) == expected);
    found += !expected.empty();
  }
  CHECK(found > 1000);
}

// All of one thread, so that it may own all of it: as many edges as waits times holds, if each were one.
void add_thread(WaitGraph* graph, uint32_t thread, uint32_t count, uint32_t context) {
  for (uint32_t n = 0; n < count; n++) {
    WaitGraph::Wait wait = {};
    wait.slot = 1 + 2 * n + thread * 2 * count;
    wait.lock = 1 + n % (count / 2) + (thread == 0 ? count : 0);
    wait.process = 1;
    wait.thread = thread;
    wait.age = count - n;
    wait.mode = Mode::kExclusive;
    wait.context = context;
    wait.since_ms = n;
    graph->add(wait);
    WaitGraph::Hold hold = {};
    hold.slot = wait.slot + 1;
    hold.lock = 1 + n % (count / 2) + (thread == 0 ? 0 : count);
    hold.process = 1;
    hold.thread = thread;
    hold.context = context;
    hold.mode = Mode::kShared;
    hold.since_ms = n;
    graph->add(hold);
  }
}

TEST(
    "two threads that hold thousands of locks each, and wait for thousands of the other one's, are searched "
    "in one pass") {
  constexpr uint32_t kCount = 20000;
  for (const uint32_t context : {1u, 0u}) {
    WaitGraph graph;
    add_thread(&graph, 0, kCount, context);
    add_thread(&graph, 1, kCount, context);
    graph.link(context == 0, kCount);
    CHECK_EQ(locks_of(graph, 2).size(), kCount);
  }
}

TEST("ten thousand waits for ten locks, each holder waiting for the next lock, are searched in one pass") {
  WaitGraph graph;
  constexpr uint32_t kWaits = 10000, kLocks = 10;
  for (uint32_t n = 0; n < kWaits; n++) {
    WaitGraph::Wait wait = {};
    wait.slot = n + 1;
    wait.lock = 1 + n % kLocks;
    wait.process = 1 + n % 100;
    wait.thread = n / 100;
    wait.age = kWaits - n;
    wait.mode = n % 3 == 0 ? Mode::kShared : Mode::kExclusive;
    wait.blocks = true;
    graph.add(wait);
  }
  // The last lock is held by nobody who waits.
  for (uint32_t n = 0; n + 1 < kLocks; n++) {
    WaitGraph::Hold hold = {};
    hold.slot = kWaits + n + 1;
    hold.lock = n + 1;
    hold.process = 1 + (n + 1) % 100;
    hold.thread = 0;
    hold.mode = Mode::kExclusive;
    graph.add(hold);
  }
  graph.link();
  for (uint32_t slot = 1; slot <= 100; slot++) CHECK(graph.cycle_through(slot, true).waits.empty());
  CHECK(graph.waits_in_cycles(1).empty());
}

}  // namespace
