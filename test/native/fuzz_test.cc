// Arbitrary values in the shared memory, before and in the middle of operations: none of them crashes, touches anything
// outside of the mapping, or goes on for ever; each ends with a status.
//
// A case is one process in which several members act on one segment, one after another, so that a seed tells all of it:
// which operations, which words are overwritten with what, and before which step of which operation. The mapping lies
// between pages that nobody may touch; a build with the address sanitizer looks at everything else.
//
//   PROCLOCK_FUZZ_SEED=n    this case alone, with what it does on stderr
//   PROCLOCK_FUZZ_CASES=n   so many instead of the usual number
//
// Where it ends: the pthread objects are not overwritten. What POSIX threads do with a mutex or rwlock that they did not
// write themselves is undefined, and no check of ours comes between: glibc waits for ever for a robust mutex whose owner is
// a thread that lives, and follows the pointers of its list. What *is* done to them is everything the words around them can
// bring about: an unlock of a storage that nobody holds, a lock that moved to one never initialised, an initialisation of
// one in use. A guard that seems to be held by somebody who lives (guard_owner) is no error but kStalled.
#include <fcntl.h>

#include <unordered_map>

#include "world.h"

namespace {

using proclock::Layout;

constexpr uint64_t kCases = 300;
constexpr int kOperations = 150;
constexpr unsigned kCaseS = 60;  // an operation that meets a ring of links walks it half a million times
constexpr int kMembers = 3;
constexpr size_t kFence = 64 * proclock::kPage;

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

bool verbose = false;
#define TELL(...) \
  if (verbose) fprintf(stderr, __VA_ARGS__)

// ---- what is overwritten

class Scribbler {
 public:
  Scribbler(char* base, Dice& dice) : base_(base), dice_(dice) {}

  void scribble() {
    const size_t offset = place();
    const uint32_t what = value();
    TELL("    %zu := %u\n", offset, what);
    reinterpret_cast<std::atomic<uint32_t>*>(base_ + offset)->store(what, std::memory_order_relaxed);
  }
  // Whoever seems to be in the guard does not stay there for the rest of the case.
  void free_guard() { header().guard_owner.plain()->store(proclock::kNobody); }

 private:
  using Header = proclock::Header<TestPlatform>;
  using Table = Layout<TestPlatform>;
  Header& header() { return *reinterpret_cast<Header*>(base_); }

  size_t word(size_t start, size_t bytes) {
    return start + dice_.below(static_cast<uint32_t>(bytes / 4)) * 4;
  }
  size_t place() {
    const size_t tables = reinterpret_cast<char*>(&header().processes) - base_;
    switch (dice_.below(12)) {
      case 0:
        return word(0, offsetof(Header, guard));
      case 1:
        // Rarely: as long as somebody seems to be inside, an operation is nothing but a wait.
        return dice_.one_in(4) ? offsetof(Header, guard_owner) : offsetof(Header, attach_epoch);
      case 2:
        return word(tables, sizeof(Header) - tables);
      case 3:
        return word(Table::kProcesses, (kMembers + 3) * sizeof(proclock::Process<TestPlatform>));
      case 4:
        return Table::kStorages + dice_.below(16) * sizeof(proclock::Storage<TestPlatform>) +
               offsetof(proclock::Storage<TestPlatform>, next);
      case 5:
        return word(Table::kExtents, 16 * sizeof(proclock::Extent<TestPlatform>));
      case 6:
        return word(Table::kBuckets, proclock::kBucketsMin * 4);
      case 7:
      case 8:
        return word(Table::kLocks, 6 * sizeof(proclock::Lock<TestPlatform>));
      default:
        return word(Table::kSlots, 16 * sizeof(proclock::Slot<TestPlatform>));
    }
  }
  uint32_t value() {
    switch (dice_.below(8)) {
      case 0:
        return 0;
      case 1:
        return static_cast<uint32_t>(dice_.bits());
      case 2:
        return ~dice_.below(3);
      case 3:  // flags of a slot, with its process below them
        return dice_.below(256) << 16 | dice_.below(kMembers + 2);
      case 4:  // phases and modes, flags of a gate
        return dice_.below(16);
      default:  // an index that is in use
        return dice_.below(12);
    }
  }

  char* base_;
  Dice& dice_;
};

// ---- who acts on it

// In the middle of operations as well: TestPlatform acts at a step.
Scribbler* scribbler = nullptr;
void scribble_now() { scribbler->scribble(); }

enum class State { kIdle, kHeld, kWaiting, kOwing };

struct Actor {
  Member member;
  struct Hold {
    Ref ref;
    Mode mode;
    State state;
  };
  std::vector<Hold> holds;
  bool in = false;
};

class Case {
 public:
  explicit Case(uint64_t seed) : dice_(seed) {}

  void run() {
    TestPlatform::guard_patience_ns = Member::Arena::kPatienceNs;
    make_fenced_places();
    for (Actor& actor : actors_) {
      enter(actor);
      CHECK(std::find(places_.begin(), places_.end(), actor.member.memory.base()) != places_.end());
    }
    Scribbler mine(map_for_scribbling(), dice_);
    scribbler = &mine;
    for (int n = 0; n < kOperations; n++) {
      if (dice_.one_in(4)) mine.scribble();
      if (dice_.one_in(4)) mine.free_guard();
      // The order of evaluation is part of what the seed means.
      const uint64_t step = 1 + dice_.below(40);
      const bool in_the_middle = dice_.one_in(4);
      if (in_the_middle) TestPlatform::arm(step, scribble_now);
      act(actors_[dice_.below(kMembers)]);
      TestPlatform::disarm();
    }
    // In whatever state it is, it can be left.
    mine.free_guard();
    for (Actor& actor : actors_) {
      if (actor.in) actor.member.arena->detach();
      if (actor.in) actor.member.vanish();
    }
  }

 private:
  // The kernel gives a new mapping the first gap in which it fits: one of these, each between two fences.
  void make_fenced_places() {
    const size_t bytes = Layout<TestPlatform>::kBytes;
    for (int n = 0; n < kMembers; n++) {
      void* all =
          mmap(nullptr, bytes + 2 * kFence, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      CHECK(all != MAP_FAILED);
      places_.push_back(static_cast<char*>(all) + kFence);
    }
    for (char* place : places_) CHECK_EQ(munmap(place, bytes), 0);
  }
  // A mapping of its own, since members come and go.
  char* map_for_scribbling() {
    const int fd = ::open(segment_.path().c_str(), O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    void* base = mmap(nullptr, Layout<TestPlatform>::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(base != MAP_FAILED);
    close(fd);
    return static_cast<char*>(base);
  }

  void enter(Actor& actor) {
    const Status status = actor.member.enter(segment_.name());
    actor.in = ok(status);
    actor.holds.clear();
    if (!actor.in) actor.member.vanish();
    tell("enter", status);
  }

  void tell(const char* what, Status status) {
    TELL("  %s: %d\n", what, static_cast<int>(status));
    // Success, or a reason that there is.
    CHECK(status <= Status::kOk && status >= Status::kStolen);
  }

  Mode mode() { return dice_.one_in(2) ? Mode::kExclusive : Mode::kShared; }

  void open(Actor& actor) {
    std::string name(1, static_cast<char>('a' + dice_.below(3)));
    if (dice_.one_in(3)) name += std::string(100 + 60 * dice_.below(3), 'n');
    Actor::Hold hold = {{}, mode(), State::kIdle};
    const Status status = actor.member.arena->open_lock(name_of(name), 0, &hold.ref);
    tell("open", status);
    if (ok(status)) actor.holds.push_back(hold);
  }

  void act(Actor& actor) {
    if (!actor.in) return enter(actor);
    Member::Arena& arena = *actor.member.arena;
    const uint32_t dice = dice_.below(32);
    if (dice == 0) {
      if (dice_.one_in(2)) arena.detach();
      actor.member.vanish();
      actor.in = false;
      return;
    }
    if (actor.holds.empty() || dice <= 3) return open(actor);
    if (dice <= 8) return look_around(actor, dice);
    const size_t number = dice_.below(static_cast<uint32_t>(actor.holds.size()));
    Actor::Hold& hold = actor.holds[number];
    if (dice == 9 && hold.state == State::kIdle) {
      tell("unbind", arena.unbind(hold.ref));
      actor.holds.erase(actor.holds.begin() + static_cast<std::ptrdiff_t>(number));
      return;
    }
    advance(actor.member, hold, dice);
  }

  void look_around(Actor& actor, uint32_t dice) {
    Member::Arena& arena = *actor.member.arena;
    const Ref& ref = actor.holds[0].ref;
    std::vector<proclock::HolderInfo> infos;
    std::unordered_map<uint32_t, proclock::LockName> names;
    std::vector<uint32_t> slots;
    switch (dice) {
      case 4:
        return tell("snapshot", arena.snapshot(ref.lock_index, &infos));
      case 5:
        return tell("snapshot_all", arena.snapshot_all(&infos, &names));
      case 6:
        return tell("take_poked", arena.take_poked(&slots));
      case 7:
        tell("finish_recovery", arena.finish_recovery(ref.lock_index));
        return tell("look", arena.look(ref.lock_index));
      default:
        TestPlatform::ahead_ns += Member::Arena::kUnresponsiveNs / 2;
        tell("open_barrier", arena.open_barrier_if_overdue(ref.lock_index));
        return tell("recover_if_dead", arena.recover_if_dead(dice_.below(kMembers + 3)));
    }
  }

  // What a client may do with a slot in this state.
  void advance(Member& member, Actor::Hold& hold, uint32_t dice) {
    Member::Arena& arena = *member.arena;
    Status status = Status::kOk;
    switch (hold.state) {
      case State::kIdle:
        if (dice < 14) {
          status = arena.steal(hold.ref, &member.token);
          if (ok(status)) hold.mode = Mode::kExclusive;
          if (ok(status)) hold.state = State::kHeld;
          tell("steal", status);
        } else if (dice < 22) {
          const Try tried = member.acquire(hold.ref, hold.mode, static_cast<Turn>(dice_.below(3)));
          TELL("  try: %d\n", static_cast<int>(tried));
          if (tried == Try::kAcquired) hold.state = State::kHeld;
          if (tried == Try::kOwing) hold.state = State::kOwing;
        } else {
          const uint16_t flags = static_cast<uint16_t>(dice_.below(4) * proclock::kSlotAsync);
          status = arena.enqueue(hold.ref, hold.mode, flags);
          if (status != Status::kStalled) hold.state = State::kWaiting;
          tell("enqueue", status);
        }
        return;
      case State::kWaiting:
        if (dice < 24) {
          status = arena.react(hold.ref, hold.mode, &member.token);
          if (ok(status)) tell("settle_grant", arena.settle_grant(hold.ref));
          if (ok(status)) hold.state = State::kHeld;
          tell("react", status);
        } else {
          status = arena.withdraw(hold.ref);
          if (status != Status::kStalled) hold.state = State::kIdle;
          tell("withdraw", status);
        }
        return;
      case State::kHeld:
        if (dice < 14) {
          if (hold.mode == Mode::kExclusive) status = arena.set_abandoned(hold.ref, dice_.one_in(2));
          arena.abandoned(hold.ref);
          tell("set_abandoned", status);
        } else if (dice < 18) {
          status = arena.downgrade(hold.ref);
          if (ok(status)) hold.mode = Mode::kShared;
          tell("downgrade", status);
        } else {
          status = arena.release(hold.ref);
          hold.state = status == Status::kStalled ? State::kOwing : State::kIdle;
          tell("release", status);
        }
        return;
      case State::kOwing:
        status = arena.release_duty(hold.ref);
        if (ok(status)) hold.state = State::kIdle;
        tell("release_duty", status);
        return;
    }
  }

  Dice dice_;
  harness::Segment segment_;
  std::vector<char*> places_;
  Actor actors_[kMembers];
};

TEST("times that are no numbers, of many holders, do not lead the snapshot of a namespace astray") {
  harness::Segment segment;
  Member one(segment.name());
  std::vector<Ref> refs = {one.open("lock")};
  while (refs.size() < 200) refs.push_back(one.bind(refs[0]));
  for (const Ref& ref : refs) CHECK_EQ(one.acquire(ref, Mode::kShared), Try::kAcquired);
  Dice dice(1);
  for (int round = 0; round < 50; round++) {
    for (const Ref& ref : refs) {
      const uint64_t since = dice.one_in(20) ? ~uint64_t{0} : proclock::bits_of(dice.below(1000000));
      ref.slot->since.store(since, std::memory_order_relaxed);
    }
    std::vector<proclock::HolderInfo> infos;
    std::unordered_map<uint32_t, proclock::LockName> names;
    CHECK_EQ(one.arena->snapshot_all(&infos, &names), Status::kOk);
    CHECK_EQ(infos.size(), refs.size());
    for (size_t n = 1; n < infos.size(); n++) CHECK(infos[n - 1].since_ms <= infos[n].since_ms);
  }
}

TEST("a queue that leads back to itself, past waiters that were passed over, is found corrupt") {
  harness::Segment segment;
  Member one(segment.name());
  const Ref holder = one.open("lock");
  const Ref first = one.open("lock");
  const Ref last = one.open("lock");
  const Ref next = one.open("lock");
  CHECK_EQ(one.acquire(holder, Mode::kExclusive), Try::kAcquired);
  CHECK_EQ(one.queue(first, Mode::kShared), Status::kAgain);
  CHECK_EQ(one.queue(last, Mode::kShared), Status::kAgain);
  last.slot->flags.fetch_or(proclock::kSlotSkipped, std::memory_order_relaxed);
  last.slot->queue_prev.store(last.slot_index, std::memory_order_relaxed);
  CHECK_EQ(one.arena->enqueue(next, Mode::kShared, 0), Status::kCorrupt);
  one.vanish();
}

TEST("names that together are longer than there is room for are found corrupt, and not read") {
  constexpr uint32_t kLocks = 400;
  harness::Segment segment;
  Member one(segment.name());
  for (uint32_t n = 0; n < kLocks; n++) {
    const Ref ref = one.open(std::to_string(n) + std::string(100, 'n'));
    CHECK_EQ(one.acquire(ref, Mode::kShared), Try::kAcquired);
    ref.lock->name_bytes.store(proclock::kNameUsed | proclock::kNameBytesMax, std::memory_order_relaxed);
    const uint32_t extent = ref.lock->name_rest.load(std::memory_order_relaxed);
    Auditor(one.memory.base()).extent(extent).next.store(extent, std::memory_order_relaxed);
  }
  std::vector<proclock::HolderInfo> infos;
  std::unordered_map<uint32_t, proclock::LockName> names;
  CHECK_EQ(one.arena->snapshot_all(&infos, &names), Status::kCorrupt);
  size_t bytes = 0;
  for (const auto& name : names) bytes += name.second.bytes.size();
  CHECK(bytes <= size_t{1} << 27);
  one.vanish();
}

TEST("whatever is in the segment, each operation ends, with a status", 36000) {
  const uint64_t only = harness::number_from("PROCLOCK_FUZZ_SEED", 0);
  const uint64_t cases = only != 0 ? 1 : harness::number_from("PROCLOCK_FUZZ_CASES", kCases);
  verbose = only != 0;
  int failed = 0;
  for (uint64_t n = 0; n < cases; n++) {
    const uint64_t seed = only != 0 ? only : n + 1;
    const pid_t pid = harness::start([seed] {
      alarm(kCaseS);
      Case(seed).run();
    });
    const int status = harness::join(pid);
    if (status == 0) continue;
    failed++;
    fprintf(stderr, "  PROCLOCK_FUZZ_SEED=%llu: %s %d\n", static_cast<unsigned long long>(seed),
            WIFSIGNALED(status) ? "signal" : "exit code",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    // A case that ended in the middle leaves its segment.
    shm_unlink((harness::Segment::prefix(pid) + "0").c_str());
  }
  CHECK_EQ(failed, 0);
  printf("  %llu cases\n", static_cast<unsigned long long>(cases));
}

}  // namespace
