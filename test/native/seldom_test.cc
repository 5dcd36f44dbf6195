// Waiters that look seldom whether the front of their queue reacts (queue.h, Q1 to Q4): who is told to look often again.
#include "world.h"

namespace {

constexpr Mode kX = Mode::kExclusive;
constexpr uint32_t kAsync = proclock::kSlotAsync;

// Waiting processes of one waiter each, of which all but the first few have said that they look seldom.
struct Quiet {
  explicit Quiet(uint32_t count, uint32_t often = 0)
      : holder(segment.name()), crowd(segment.name()), held(holder.open("queue")) {
    CHECK_EQ(holder.acquire(held, kX), Try::kAcquired);
    for (uint32_t n = 0; n < count; n++) add(n >= often);
  }
  void add(bool seldom = true) {
    members.push_back(std::make_unique<Member>(segment.name()));
    refs.push_back(waiter(*members.back()));
    if (seldom) members.back()->arena->announce_quiet(held.lock_index);
  }
  static Ref waiter(Member& member, uint32_t flags = kAsync) {
    const Ref ref = member.open("queue");
    CHECK_EQ(member.queue(ref, kX, flags), Status::kAgain);
    return ref;
  }
  bool is_rung_for(uint32_t n) const {
    return (refs[n].slot->flags.load(std::memory_order_relaxed) & proclock::kSlotOnDoorbell) != 0;
  }
  // Which are, as a line: one character each.
  std::string rung() const {
    std::string line;
    for (uint32_t n = 0; n < members.size(); n++) line += is_rung_for(n) ? '!' : '.';
    return line;
  }
  void grant(uint32_t n) {
    CHECK(members[n]->take_poke(refs[n]));
    CHECK_EQ(members[n]->react(refs[n], kX), Status::kOk);
  }

  harness::Segment segment;
  Member holder;
  Member crowd;  // has more than one wait
  Ref held;
  std::vector<std::unique_ptr<Member>> members;
  std::vector<Ref> refs;
};

TEST("after a quiet time, eight processes that wait behind the front are told of a poke as well") {
  Quiet s(12);
  s.holder.release(s.held);
  CHECK(s.rung() == "!!!!!!!!!...");
  for (uint32_t n = 1; n < 9; n++) {
    CHECK(s.members[n]->take_poke(s.refs[n]));
    CHECK_EQ(s.members[n]->react(s.refs[n], kX), Status::kAgain);  // it is not its turn
  }
  // They have answered, and look: the next poke rings only for one that has moved up.
  s.grant(0);
  s.members[0]->release(s.refs[0]);
  CHECK(s.rung() == ".!.......!..");
  CHECK(s.members[9]->take_poke(s.refs[9]));
  s.grant(1);
  s.members[1]->release(s.refs[1]);
  CHECK(s.rung() == "..!.......!.");
  audit(s.holder);
}

TEST("one that was rung for, and has not answered, is not counted on: the next poke goes further") {
  Quiet s(12);
  s.holder.release(s.held);
  CHECK(s.rung() == "!!!!!!!!!...");
  CHECK(s.members[8]->take_poke(s.refs[8]));
  s.grant(0);
  s.members[0]->release(s.refs[0]);
  CHECK(s.rung() == ".!!!!!!!.!!!");
  audit(s.holder);
}

TEST("who looks often is not rung for behind the front, and when nobody looks seldom no poke asks any more") {
  Quiet s(5, 3);
  auto& unwatched = s.held.lock->unwatched;
  s.holder.release(s.held);
  CHECK(s.rung() == "!..!!");
  CHECK(unwatched.load(std::memory_order_relaxed) != 0);
  CHECK(s.members[3]->take_poke(s.refs[3]));
  CHECK(s.members[4]->take_poke(s.refs[4]));
  s.grant(0);
  s.members[0]->release(s.refs[0]);
  CHECK(s.rung() == ".!...");
  CHECK_EQ(unwatched.load(std::memory_order_relaxed), 0u);
  s.members[4]->arena->announce_quiet(s.held.lock_index);
  s.grant(1);
  s.members[1]->release(s.refs[1]);
  CHECK(s.rung() == "..!.!");
  audit(s.holder);
}

TEST("many waits of one process are one watcher: those of others behind them are rung for") {
  Quiet s(3);
  std::vector<Ref> more;
  for (int n = 0; n < 20; n++) more.push_back(s.waiter(s.crowd));
  s.crowd.arena->announce_quiet(s.held.lock_index);
  s.add();
  s.holder.release(s.held);
  CHECK(s.rung() == "!!!!");
  CHECK(s.crowd.pokes() == std::vector<uint32_t>{more[0].slot_index});
  audit(s.holder);
}

TEST("a process that waits synchronously has ticks of its own, and so has one that tells itself") {
  Quiet s(1);
  const Ref sync = s.waiter(s.crowd, 0);
  const Ref own = s.waiter(s.holder);
  s.holder.arena->announce_quiet(s.held.lock_index);
  s.holder.release(s.held);
  CHECK(s.rung() == "!");
  CHECK_EQ(sync.slot->wake.load(std::memory_order_relaxed), 0u);
  CHECK(s.holder.pokes() == std::vector<uint32_t>{own.slot_index});
  s.grant(0);
  s.members[0]->release(s.refs[0]);
  CHECK_EQ(s.held.lock->unwatched.load(std::memory_order_relaxed), 0u);
  audit(s.holder);
}

}  // namespace
