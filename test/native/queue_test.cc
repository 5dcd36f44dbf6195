// Waiting: who is told, in which order, and who may go first.
#include "world.h"

namespace {

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;
constexpr uint32_t kAsync = proclock::kSlotAsync;
constexpr uint64_t kQuietNs = 1000000000;
constexpr uint32_t kAsyncFair = proclock::kSlotAsync | proclock::kSlotFair;

// A holder and a crowd of waiters with an event loop, on a clock that stands still unless it is moved.
struct Scene {
  Scene() : holder(segment.name()), crowd(segment.name()), held(holder.open("queue")) {
    TestPlatform::frozen_ns = TestPlatform::monotonic_ns();
  }
  Ref waiter(Mode mode, uint32_t flags = kAsync, uint32_t thread = 0) {
    const Ref ref = crowd.open("queue", thread);
    CHECK_EQ(crowd.queue(ref, mode, flags), Status::kAgain);
    return ref;
  }
  static std::vector<uint32_t> slots(std::vector<Ref> refs) {
    std::vector<uint32_t> indices;
    for (const Ref& ref : refs) indices.push_back(ref.slot_index);
    std::sort(indices.begin(), indices.end());
    return indices;
  }
  void later(uint64_t ns) { TestPlatform::frozen_ns += ns; }
  void look_around(uint64_t after_ns = Member::Arena::kUnresponsiveNs) {
    CHECK_EQ(holder.arena->open_barrier_if_overdue(held.lock_index, &seen), Status::kOk);
    later(after_ns);
    CHECK_EQ(holder.arena->open_barrier_if_overdue(held.lock_index, &seen), Status::kOk);
  }
  std::vector<uint32_t> in_order() { return Auditor(holder.memory.base()).queue(held.lock_index); }

  harness::Segment segment;
  Member holder;
  Member crowd;
  Ref held;
  proclock::PokeSeen seen;  // by the holder, which looks around
};

TEST("writers that wait get the lock in the order in which they came") {
  constexpr int kWaiters = 6;
  struct Page {
    std::atomic<int> turn{0};
    int order[kWaiters];
  };
  harness::Segment segment;
  Page* page = harness::shared<Page>();
  Member boss(segment.name());
  const Ref ref = boss.open("queue");
  CHECK_EQ(boss.acquire(ref, kX), Try::kAcquired);
  std::vector<pid_t> waiters;
  for (int n = 0; n < kWaiters; n++) {
    waiters.push_back(harness::start([&] {
      Member self(segment.name());
      const Ref slot = self.open("queue");
      CHECK_EQ(acquire_waiting(self, slot, kX, n % 2 == 0 ? 0 : proclock::kSlotFair), Status::kOk);
      page->order[page->turn.fetch_add(1)] = n;
      self.release(slot);
      self.unbind(slot);
    }));
    CHECK(harness::eventually([&] {
      std::vector<proclock::HolderInfo> infos;
      CHECK_EQ(boss.arena->snapshot(ref.lock_index, &infos), Status::kOk);
      return infos.size() == static_cast<size_t>(n) + 2;
    }));
  }
  boss.release(ref);
  for (const pid_t waiter : waiters) JOIN_OK(waiter);
  for (int n = 0; n < kWaiters; n++) CHECK_EQ(page->order[n], n);
}

TEST("all readers at the head of the queue are poked together, and nobody behind the writer after them") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref first = s.waiter(kS);
  const Ref second = s.waiter(kS);
  const Ref writer = s.waiter(kX);
  const Ref behind = s.waiter(kS);
  CHECK(s.crowd.pokes().empty());
  s.holder.release(s.held);
  CHECK(s.crowd.pokes() == Scene::slots({first, second}));
  CHECK_EQ(s.crowd.react(behind, kS), Status::kAgain);  // a try out of turn is no try
  CHECK_EQ(s.crowd.react(second, kS), Status::kOk);
  CHECK_EQ(s.crowd.react(first, kS), Status::kOk);
  CHECK_EQ(s.crowd.react(writer, kX), Status::kAgain);
  s.crowd.release(first);
  s.crowd.pokes();
  CHECK_EQ(s.crowd.react(writer, kX), Status::kAgain);
  s.crowd.release(second);
  CHECK(s.crowd.pokes() == Scene::slots({writer}));
  CHECK_EQ(s.crowd.react(writer, kX), Status::kOk);
  s.crowd.release(writer);
  CHECK(s.crowd.pokes() == Scene::slots({behind}));
  CHECK_EQ(s.crowd.react(behind, kS), Status::kOk);
  audit(s.holder);
}

TEST("a reader that gives up pokes the first of the others alone, and nobody if that one has yet to react") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref first = s.waiter(kS);
  const Ref second = s.waiter(kS);
  const Ref third = s.waiter(kS);
  const Ref last = s.waiter(kS);
  CHECK_EQ(s.crowd.arena->withdraw(second), Status::kOk);
  CHECK(s.crowd.pokes() == Scene::slots({first}));
  CHECK_EQ(s.crowd.arena->withdraw(last), Status::kOk);
  CHECK(s.crowd.pokes().empty());
  s.holder.release(s.held);
  CHECK(s.crowd.pokes().empty());  // the first one is going to see that
  CHECK_EQ(s.crowd.react(first, kS), Status::kOk);
  CHECK(s.crowd.pokes() == Scene::slots({third}));  // and passes it on
  CHECK_EQ(s.crowd.react(third, kS), Status::kOk);
  s.crowd.release(first);
  s.crowd.release(third);
  audit(s.holder);
}

TEST("a wait that gives up leaves no frozen try behind, and does what that one owes") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref first = s.waiter(kX);
  const Ref behind = s.waiter(kX);
  const uint32_t storage = proclock::storage_of(s.held.slot->word.load(std::memory_order_relaxed));
  // As a recovery leaves it that came in the middle of its try, with a latch that was stalled since.
  behind.slot->word.store(proclock::slot_word(proclock::Phase::kStale, kX, storage, behind.tag),
                          std::memory_order_relaxed);
  CHECK_EQ(s.crowd.arena->withdraw(behind), Status::kOk);
  CHECK(s.crowd.pokes() == Scene::slots({first}));
  CHECK_EQ(behind.slot->word.load(std::memory_order_relaxed), proclock::idle_word(behind.tag));
  s.holder.release(s.held);
  CHECK_EQ(s.crowd.react(first, kX), Status::kOk);
  s.crowd.release(first);
  CHECK_EQ(s.crowd.acquire(behind, kX), Try::kAcquired);
  s.crowd.release(behind);
  audit(s.holder);
}

TEST("who belongs to the front may try before it reacts, poked or not, and nobody else") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref first = s.waiter(kX);
  const Ref behind = s.waiter(kX);
  Member::Arena& arena = *s.crowd.arena;
  uint64_t token = 0;
  CHECK_EQ(arena.try_front(first, kX, &token), Try::kBusy);
  CHECK_EQ(arena.try_front(behind, kX, &token), Try::kBarred);
  s.holder.release(s.held);
  CHECK_EQ(arena.try_front(behind, kX, &token), Try::kBarred);
  CHECK_EQ(arena.try_front(first, kX, &token), Try::kAcquired);
  CHECK_EQ(arena.settle_grant(first), Status::kOk);
  CHECK(s.crowd.pokes() == Scene::slots({first}));  // that of the release, which it did not need
  s.crowd.release(first);
  CHECK(s.crowd.pokes() == Scene::slots({behind}));
  s.look_around();
  CHECK_EQ(arena.try_front(behind, kX, &token), Try::kBarred);  // passed over: it has to say that it is back
  CHECK_EQ(s.crowd.react(behind, kX), Status::kOk);
  audit(s.holder);
}

TEST("a reader that joins the readers at the head of the queue may try at once") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kS), Try::kAcquired);
  const Ref writer = s.waiter(kX);
  const Ref behind = s.crowd.open("queue");
  CHECK_EQ(s.crowd.arena->enqueue(behind, kS, kAsync), Status::kAgain);
  CHECK_EQ(s.crowd.arena->withdraw(writer), Status::kOk);
  CHECK(s.crowd.pokes() == Scene::slots({behind}));
  const Ref another = s.crowd.open("queue");
  CHECK_EQ(s.crowd.arena->enqueue(another, kS, kAsync), Status::kOk);
  CHECK_EQ(s.crowd.react(another, kS), Status::kOk);
  CHECK_EQ(s.crowd.react(behind, kS), Status::kOk);
  audit(s.holder);
}

TEST("a poked waiter that withdraws passes the poke on") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref first = s.waiter(kX);
  const Ref second = s.waiter(kX);
  s.holder.release(s.held);
  CHECK(s.crowd.pokes() == Scene::slots({first}));
  CHECK_EQ(s.crowd.arena->withdraw(first), Status::kOk);
  CHECK(s.crowd.pokes() == Scene::slots({second}));
  CHECK_EQ(s.crowd.react(second, kX), Status::kOk);
  audit(s.holder);
}

TEST("a waiter that withdraws from the middle changes nothing for the others") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref first = s.waiter(kX);
  const Ref second = s.waiter(kX);
  const Ref third = s.waiter(kX);
  CHECK_EQ(s.crowd.arena->withdraw(second), Status::kOk);
  CHECK(s.crowd.pokes().empty());
  CHECK(s.in_order() == (std::vector<uint32_t>{first.slot_index, third.slot_index}));
  audit(s.holder);
}

TEST("while a poke is under way, releases tell nobody again") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref first = s.waiter(kX, 0);  // sleeps on its wake word
  const uint32_t wake = first.slot->wake.load(std::memory_order_relaxed);
  s.holder.release(s.held);
  CHECK_EQ(first.slot->wake.load(std::memory_order_relaxed), wake + 1);
  for (int n = 0; n < 3; n++) {
    CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
    s.holder.release(s.held);
  }
  CHECK_EQ(first.slot->wake.load(std::memory_order_relaxed), wake + 1);
}

TEST("whoever gets in between a poke and the try after it pokes again when it leaves") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref waiter = s.waiter(kX);
  s.holder.release(s.held);
  CHECK(s.crowd.pokes() == Scene::slots({waiter}));
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  CHECK_EQ(s.crowd.react(waiter, kX), Status::kAgain);
  s.holder.release(s.held);
  CHECK(s.crowd.pokes() == Scene::slots({waiter}));
}

TEST("a newcomer may overtake the front of the queue for one millisecond, and not any longer") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref waiter = s.waiter(kX);
  s.holder.release(s.held);
  CHECK_EQ(s.holder.acquire(s.held, kX, Turn::kInOrder), Try::kBarred);
  s.later(Member::Arena::kBargeNs - 1);
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  CHECK_EQ(s.crowd.react(waiter, kX), Status::kAgain);
  s.holder.release(s.held);
  s.later(1);
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kBarred);
  CHECK_EQ(s.holder.acquire(s.held, kS), Try::kBarred);
  CHECK_EQ(s.crowd.react(waiter, kX), Status::kOk);
  s.crowd.release(waiter);
  CHECK_EQ(s.holder.acquire(s.held, kX, Turn::kInOrder), Try::kAcquired);
}

TEST("the millisecond begins anew with each front of the queue, and only then") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref first = s.waiter(kX);
  s.later(Member::Arena::kBargeNs);
  const Ref second = s.waiter(kX);  // does not lower the barrier that the first has up
  s.holder.release(s.held);
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kBarred);
  CHECK_EQ(s.crowd.react(first, kX), Status::kOk);
  s.crowd.release(first);
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  s.later(Member::Arena::kBargeNs);
  s.holder.release(s.held);
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kBarred);
  CHECK_EQ(s.crowd.react(second, kX), Status::kOk);
}

TEST("nobody overtakes a queue in which a fair waiter is") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref plain = s.waiter(kX);
  const Ref fair = s.waiter(kX, kAsyncFair);
  s.holder.release(s.held);
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kBarred);
  CHECK_EQ(s.crowd.react(plain, kX), Status::kOk);
  s.crowd.release(plain);
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kBarred);
  CHECK_EQ(s.crowd.arena->withdraw(fair), Status::kOk);
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  audit(s.holder);
}

TEST(
    "a front waiter that does not react is passed over, keeps its place, and is the front again once it "
    "reacts") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref busy = s.waiter(kX, kAsync, 1);
  const Ref next = s.waiter(kX, kAsync, 2);
  const Ref last = s.waiter(kX, kAsync, 3);
  s.holder.release(s.held);
  CHECK(s.crowd.pokes() == Scene::slots({busy}));
  s.later(1000 * Member::Arena::kUnresponsiveNs);  // nobody has seen that
  s.look_around(Member::Arena::kUnresponsiveNs - 1);
  CHECK(s.crowd.pokes().empty());
  s.later(1);
  CHECK_EQ(s.holder.arena->open_barrier_if_overdue(s.held.lock_index, &s.seen), Status::kOk);
  CHECK(s.crowd.pokes() == Scene::slots({next}));
  CHECK_EQ(s.crowd.react(next, kX), Status::kOk);
  CHECK(s.in_order() == (std::vector<uint32_t>{busy.slot_index, last.slot_index}));
  CHECK_EQ(s.crowd.react(busy, kX), Status::kAgain);  // there it is again, and has to wait
  s.crowd.release(next);
  CHECK(s.crowd.pokes() == Scene::slots({busy}));
  CHECK_EQ(s.crowd.react(busy, kX), Status::kOk);
  s.crowd.release(busy);
  CHECK(s.crowd.pokes() == Scene::slots({last}));
  CHECK_EQ(s.crowd.react(last, kX), Status::kOk);
  audit(s.holder);
}

TEST("a lock is quiet when nothing has happened to it for so long, and not while a poke is under way") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref front = s.waiter(kX);
  CHECK(!s.holder.arena->is_quiet(s.held.lock_index, &s.seen, kQuietNs));
  s.later(kQuietNs);
  CHECK(s.holder.arena->is_quiet(s.held.lock_index, &s.seen, kQuietNs));
  s.holder.release(s.held);
  CHECK(!s.holder.arena->is_quiet(s.held.lock_index, &s.seen, 0));
  CHECK_EQ(s.crowd.react(front, kX), Status::kOk);
  CHECK(!s.holder.arena->is_quiet(s.held.lock_index, &s.seen, 1));
  s.crowd.release(front);
  audit(s.holder);
}

TEST("a death in the latch takes no poke off a doorbell, whether its waiter is at the front or not") {
  for (const bool front_came_back : {false, true}) {
    Scene s;
    CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
    const Ref busy = s.waiter(kX);
    const Ref next = s.waiter(kX);
    s.holder.release(s.held);
    s.look_around();
    CHECK_EQ(s.holder.acquire(s.held, kX, Turn::kFront), Try::kAcquired);
    if (front_came_back) {
      CHECK_EQ(s.crowd.react(busy, kX), Status::kAgain);
    } else {  // and nobody else reacts either
      s.look_around();
    }
    const pid_t dead = harness::start([&] {
      Member self(s.segment.name());
      TestPlatform::arm(4, [] {
        CHECK(TestPlatform::is_inside_latch());
        kill(getpid(), SIGKILL);
      });
      self.open("another lock");
    });
    CHECK(harness::killed(harness::join(dead)));
    s.holder.look_at_all();
    CHECK_EQ(s.holder.arena->header().rebuilds.load(std::memory_order_relaxed), 1u);
    CHECK(s.crowd.take_poke(next));
    audit(s.holder);
  }
}

TEST("a writer that came to the front beside a reader, and withdraws, lets the readers behind it in") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref reader = s.waiter(kS);
  const Ref writer = s.waiter(kX);
  const Ref behind = s.waiter(kS);
  s.holder.release(s.held);
  CHECK_EQ(s.crowd.react(reader, kS), Status::kOk);  // and the writer is the front now
  s.crowd.pokes();
  CHECK_EQ(s.crowd.arena->withdraw(writer), Status::kOk);
  CHECK(s.crowd.take_poke(behind));
  CHECK_EQ(s.crowd.react(behind, kS), Status::kOk);
  audit(s.holder);
}

TEST("a waiter that was passed over may still take the lock when it finds it free") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref busy = s.waiter(kX);
  s.holder.release(s.held);
  s.look_around();
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);  // nobody else waits: the barrier is open for all
  s.holder.release(s.held);
  CHECK_EQ(s.crowd.react(busy, kX), Status::kOk);
  audit(s.holder);
}

TEST("a queue of which every waiter was passed over is served again as they come back") {
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  const Ref first = s.waiter(kX);
  const Ref second = s.waiter(kX);
  s.holder.release(s.held);
  for (int n = 0; n < 3; n++) s.look_around();
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  CHECK_EQ(s.crowd.react(second, kX), Status::kAgain);
  CHECK_EQ(s.crowd.react(first, kX), Status::kAgain);
  s.crowd.pokes();
  s.holder.release(s.held);
  CHECK(s.crowd.pokes() == Scene::slots({first}));
  CHECK_EQ(s.crowd.react(first, kX), Status::kOk);
  s.crowd.release(first);
  CHECK(s.crowd.pokes() == Scene::slots({second}));
  CHECK_EQ(s.crowd.react(second, kX), Status::kOk);
}

TEST("ten thousand waiters on one lock get it in order, and those who withdraw do not disturb") {
  constexpr int kWaiters = 10000;
  Scene s;
  CHECK_EQ(s.holder.acquire(s.held, kX), Try::kAcquired);
  std::vector<Ref> waiters;
  for (int n = 0; n < kWaiters; n++) waiters.push_back(s.waiter(kX));
  CHECK_EQ(audit(s.holder).queued, static_cast<uint32_t>(kWaiters));
  for (int n = 5; n < kWaiters; n += 10) CHECK_EQ(s.crowd.arena->withdraw(waiters[n]), Status::kOk);
  CHECK(s.crowd.pokes().empty());
  s.holder.release(s.held);
  for (int n = 0; n < kWaiters; n++) {
    if (n % 10 == 5) continue;
    CHECK(s.crowd.pokes() == Scene::slots({waiters[n]}));
    CHECK_EQ(s.crowd.react(waiters[n], kX), Status::kOk);
    s.crowd.release(waiters[n]);
  }
  CHECK(s.crowd.pokes().empty());
  CHECK_EQ(audit(s.holder).queued, 0u);
}

}  // namespace
