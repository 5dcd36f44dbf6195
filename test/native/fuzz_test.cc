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
// The first fault that is found ends a namespace (CORRUPT), so the scribbler sets the latch free again now and then: what
// comes behind the first fault is looked at as well. fuzz_concurrent_test.cc writes while others run.
#include <fcntl.h>

#include <unordered_map>

#include "dice.h"
#include "world.h"

namespace {

using proclock::Layout;

constexpr uint64_t kCases = 300;
constexpr int kOperations = 150;
constexpr unsigned kCaseS = 60;  // an operation that meets a ring of links walks it half a million times
constexpr int kMembers = 3;
constexpr size_t kFence = 64 * proclock::kPage;

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
  // Whoever seems to be inside does not stay there for the rest of the case, and what was found corrupt is believed again.
  void free_latch() { header().latch.plain()->store(dice_.one_in(4) ? proclock::kLatchDirty : 0); }

 private:
  using Header = proclock::Header<TestPlatform>;
  using Table = Layout<TestPlatform>;
  Header& header() { return *reinterpret_cast<Header*>(base_); }

  size_t word(size_t start, size_t bytes) {
    return start + dice_.below(static_cast<uint32_t>(bytes / 4)) * 4;
  }
  size_t place() {
    const size_t tables = reinterpret_cast<char*>(&header().processes) - base_;
    switch (dice_.below(13)) {
      case 0:
        return word(0, 64);
      case 1:
        // The latch rarely: as long as somebody seems to be inside, an operation is nothing but a wait.
        return dice_.one_in(4) ? word(offsetof(Header, latch), 16) : word(64, 16);
      case 12:
        return word(offsetof(Header, scan), tables - offsetof(Header, scan));
      case 2:
        return word(tables, sizeof(Header) - tables);
      case 3:
        return word(Table::kProcesses, (kMembers + 3) * sizeof(proclock::Process<TestPlatform>));
      case 4:
        return word(Table::kStorages, 16 * sizeof(proclock::Storage<TestPlatform>));
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
      case 3:  // owner, serial, mode and phase of a slot
        return dice_.below(8) << proclock::kSerialShift | dice_.below(kMembers + 2) << proclock::kOwnerShift |
               dice_.below(16);
      case 5:  // flags of a slot
        return dice_.below(512);
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
  proclock::PokeSeen seen;
  proclock::ScanSeen scan;
  bool in = false;
};

class Case {
 public:
  explicit Case(uint64_t seed) : dice_(seed) {}

  void run() {
    TestPlatform::latch_patience_ns = proclock::System::latch_patience_ns;
    // Where a segment is proven with a thread, the stack of that one is kept, and must not be kept in one of the places.
    if (!HARNESS_LINUX) Member(harness::Segment().name()).leave();
    make_fenced_places();
    for (Actor& actor : actors_) {
      enter(actor);
      CHECK(std::find(places_.begin(), places_.end(), actor.member.memory.base()) != places_.end());
    }
    Scribbler mine(map_for_scribbling(), dice_);
    scribbler = &mine;
    for (int n = 0; n < kOperations; n++) {
      if (dice_.one_in(4)) mine.scribble();
      if (dice_.one_in(4)) mine.free_latch();
      // The order of evaluation is part of what the seed means.
      const uint64_t step = 1 + dice_.below(40);
      const bool in_the_middle = dice_.one_in(4);
      if (in_the_middle) TestPlatform::arm(step, scribble_now);
      act(actors_[dice_.below(kMembers)]);
      TestPlatform::disarm();
    }
    // In whatever state it is, it can be left.
    mine.free_latch();
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
    if (dice == 9 && (hold.state == State::kIdle || dice_.one_in(4))) {
      if (hold.state == State::kIdle) tell("unbind", arena.unbind(hold.ref));
      if (hold.state != State::kIdle) arena.leave(hold.ref);
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
    std::vector<proclock::MarkedLock> marks;
    std::vector<uint32_t> slots;
    uint32_t ahead = 0;
    switch (dice) {
      case 4:
        tell("place", arena.place(ref, &ahead));
        return tell("snapshot", arena.snapshot(ref.lock_index, &infos));
      case 5:
        tell("snapshot_marks", arena.snapshot_marks(&marks));
        return tell("snapshot_all", arena.snapshot_all(&infos, &names));
      case 6:
        return tell("take_poked", arena.take_poked(&slots));
      case 7:
        tell("finish_recovery", arena.finish_recovery(ref.lock_index));
        return tell("look", arena.look(ref.lock_index));
      default:
        TestPlatform::ahead_ns += Member::Arena::kUnresponsiveNs / 2;
        tell("open_barrier", arena.open_barrier_if_overdue(ref.lock_index, &actor.seen));
        arena.want(ref.lock_index);
        tell("tick", arena.tick(&actor.scan));
        tell("recover_left", arena.recover_left());
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
          const uint32_t flags = dice_.below(4) * proclock::kSlotAsync;
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
          if (hold.mode == Mode::kExclusive) status = arena.finish(hold.ref, proclock::Finished::kRepair);
          arena.abandoned(hold.ref);
          tell("clear_abandoned", status);
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
