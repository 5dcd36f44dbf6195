// The verdict of a deadlock, step by step. Circles of every kind, with deaths, are in sim_circles.h.
#include "world.h"

namespace {

constexpr Mode kX = Mode::kExclusive;
using Arena = Member::Arena;

// Two threads, each of which blocks on what the other one holds. The second is the younger one.
struct Scene {
  Scene() {
    CHECK_EQ(one.acquire(x, kX), Try::kAcquired);
    CHECK_EQ(two.acquire(y, kX), Try::kAcquired);
    CHECK_EQ(one.queue(wants_y, kX), Status::kAgain);
    CHECK_EQ(two.queue(wants_x, kX), Status::kAgain);
  }
  static void look(Member& who, const Ref& wait, const std::vector<Arena::Owned>& owned = {}) {
    proclock::CycleSeen seen;
    for (int n = 0; n < 2; n++) {
      CHECK_EQ(Member::unstalled([&] { return who.arena->look_for_cycle(wait, owned, &seen); }), Status::kOk);
    }
  }
  static size_t cycle_of(Member& who, const Ref& wait) {
    std::vector<proclock::HolderInfo> infos;
    std::unordered_map<uint32_t, proclock::LockName> names;
    CHECK_EQ(Member::unstalled([&] { return who.arena->cycle_of(wait, &infos, &names); }), Status::kOk);
    return infos.size();
  }
  harness::Segment segment;
  Member one{segment.name()};
  Member two{segment.name()};
  Member three{segment.name()};
  Ref x = one.open("x", 1);
  Ref wants_y = one.open("y", 1);
  Ref y = two.open("y", 2);
  Ref wants_x = two.open("x", 2);
};

TEST("of two threads that block each other the younger one is to fail, and knows why") {
  Scene s;
  s.look(s.one, s.wants_y);
  CHECK_EQ(s.one.arena->told_of_cycle(s.wants_y), 0u);
  CHECK_EQ(s.two.arena->told_of_cycle(s.wants_x), proclock::kSlotVictim);
  CHECK_EQ(s.cycle_of(s.two, s.wants_x), 2u);
  CHECK_EQ(s.two.arena->told_of_cycle(s.wants_x), proclock::kSlotVictim);
}

TEST("one that was to fail for certain does not fail for what has become likely only") {
  Scene s;
  const Ref z = s.two.open("z", 2);
  CHECK_EQ(s.two.acquire(z, kX), Try::kAcquired);
  s.look(s.one, s.wants_y);
  CHECK_EQ(s.two.arena->told_of_cycle(s.wants_x), proclock::kSlotVictim);
  // A third one takes its hold by force, and waits for another one without blocking its thread.
  const Ref stolen = s.three.open("y", 3);
  const Ref wants_z = s.three.open("z", 3);
  s.three.steal(stolen);
  CHECK_EQ(s.three.queue(wants_z, kX, proclock::kSlotAsync), Status::kAgain);
  s.look(s.three, wants_z, {{1, stolen}});
  CHECK_EQ(s.three.arena->told_of_cycle(wants_z), 0u);

  CHECK_EQ(s.cycle_of(s.two, s.wants_x), 0u);
  CHECK_EQ(s.two.arena->told_of_cycle(s.wants_x), 0u);
  // It waits on, and the circle that there is now is told of.
  s.look(s.two, s.wants_x);
  CHECK_EQ(s.two.arena->told_of_cycle(s.wants_x), proclock::kSlotWarns);
  CHECK_EQ(s.cycle_of(s.two, s.wants_x), 3u);
}

TEST("one that has asked for it fails for a likely one, whatever it was told for") {
  Scene s;
  const Ref z = s.two.open("z", 2);
  CHECK_EQ(s.two.acquire(z, kX), Try::kAcquired);
  s.wants_x.slot->flags.fetch_or(proclock::kSlotThrows, std::memory_order_relaxed);
  s.look(s.one, s.wants_y);
  const Ref stolen = s.three.open("y", 3);
  const Ref wants_z = s.three.open("z", 3);
  s.three.steal(stolen);
  CHECK_EQ(s.three.queue(wants_z, kX, proclock::kSlotAsync), Status::kAgain);
  s.look(s.three, wants_z, {{1, stolen}});
  CHECK_EQ(s.cycle_of(s.two, s.wants_x), 3u);
  CHECK_EQ(s.two.arena->told_of_cycle(s.wants_x), proclock::kSlotVictim);
}

}  // namespace
