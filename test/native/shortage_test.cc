// What happens where there is no memory for a namespace, and where its tables are full of what the dead have left.
#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "world.h"

namespace {

// Ends before its process does: what counts coverage writes its counts at the exit.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) { set(bytes); }
  ~FileSizeLimit() { set(RLIM_INFINITY); }

 private:
  static void set(rlim_t bytes) {
    rlimit limit = {bytes, RLIM_INFINITY};
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
};

TEST("a namespace for which there is no space is refused with kNoSpace, and works once there is some") {
  harness::Segment segment;
  JOIN_OK(harness::start([&] {
    FileSizeLimit limit(1 << 20);
    Member member;
    CHECK_EQ(member.enter(segment.name()), Status::kNoSpace);
  }));
  Member member(segment.name());
  CHECK_EQ(member.acquire(member.open("a name"), Mode::kExclusive), Try::kAcquired);
}

TEST("a table that can not grow says kNoSpace, breaks nothing, and grows once there is space") {
  harness::Segment segment;
  Member member(segment.name());
  Member dying(segment.name());
  const Ref ref = member.open("slots");
  CHECK_EQ(dying.acquire(dying.open("slots"), Mode::kExclusive), Try::kAcquired);
  TestPlatform::full = true;
  Ref more;
  Status status;
  while (ok(status = member.arena->bind(ref.lock_index, 0, &more))) {
  }
  CHECK_EQ(status, Status::kNoSpace);
  CHECK_EQ(member.arena->open_lock(name_of(std::string(100000, 'x')), 0, &more), Status::kNoSpace);
  audit(member);
  // Recovery does not depend on it.
  dying.vanish();
  member.look_at_all();
  CHECK_EQ(member.acquire(ref, Mode::kExclusive), Try::kAcquired);
  CHECK_EQ(member.arena->downgrade(ref), Status::kOk);
  member.release(ref);
  audit(member);
  TestPlatform::full = false;
  CHECK_EQ(member.arena->bind(ref.lock_index, 0, &more), Status::kOk);
  member.open(std::string(100000, 'x'));
  audit(member);
}

TEST("more locks than there are spare storages can be recovered when no page more is to be had") {
  harness::Segment segment;
  Member member(segment.name());
  Member dying(segment.name());
  TestPlatform::full_from = proclock::Layout<TestPlatform>::kStorages;
  TestPlatform::full_to = proclock::Layout<TestPlatform>::kSlots;
  std::vector<Ref> refs;
  Ref ref;
  Status status;
  while (ok(status = member.arena->open_lock(name_of(std::to_string(refs.size())), 0, &ref)))
    refs.push_back(ref);
  CHECK_EQ(status, Status::kNoSpace);
  CHECK(refs.size() > 3 * Member::Arena::kSpareStorages);
  for (const Ref& lock : refs) {
    CHECK_EQ(dying.acquire(dying.bind(lock), Mode::kExclusive), Try::kAcquired);
  }
  dying.vanish();
  member.look_at_all();
  for (const Ref& lock : refs) {
    CHECK_EQ(member.acquire(lock, Mode::kExclusive), Try::kAcquired);
    CHECK_EQ(lock.lock->abandoned.load(std::memory_order_relaxed), 1u);
  }
  CHECK_EQ(audit(member).processes, 1u);
}

TEST("on a file system that is really full, creating and growing say kNoSpace, and nobody gets a SIGBUS") {
  harness::Segment segment;
  JOIN_OK(harness::start([&] {
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=16k") != 0) {
      printf("  skipped: no small tmpfs can be mounted (%s)\n", strerror(errno));
      return;
    }
    Member member;
    CHECK_EQ(member.enter(segment.name()), Status::kNoSpace);
    CHECK_EQ(mount("tmpfs", "/dev/shm", "tmpfs", MS_REMOUNT, "size=256k"), 0);
    CHECK_EQ(member.enter(segment.name()), Status::kOk);
    Ref ref;
    Status status;
    while (ok(status =
                  member.arena->open_lock(name_of(std::string(40, 'x') + std::to_string(rand())), 0, &ref))) {
    }
    CHECK_EQ(status, Status::kNoSpace);
    while (ok(status = member.arena->bind(1, 0, &ref)))
      CHECK_EQ(member.acquire(ref, Mode::kShared), Try::kAcquired);
    CHECK_EQ(status, Status::kNoSpace);
    audit(member);
  }));
}

TEST("opening, binding and taking locks under a file-size limit sends no signal to the program") {
  harness::Segment segment;
  JOIN_OK(harness::start([&] {
    signal(SIGXFSZ, SIG_DFL);
    Member member(segment.name());
    FileSizeLimit limit(4096);
    const Ref ref = member.open("a name");
    Ref more;
    while (ok(member.arena->bind(ref.lock_index, 0, &more))) {
    }
    sigset_t pending;
    sigpending(&pending);
    CHECK_EQ(sigismember(&pending, SIGXFSZ), 0);
  }));
}

// ---- tables that are full of marks

// Names that somebody died holding, until no page more is to be had for a table.
TEST(
    "abandoned marks give way, the oldest first, when there is no room for another name, and that is "
    "counted") {
  harness::Segment segment;
  Member member(segment.name());
  TestPlatform::full_from = proclock::Layout<TestPlatform>::kLocks;
  TestPlatform::full_to = proclock::Layout<TestPlatform>::kStorages;
  constexpr uint32_t kRoom = proclock::kPage / sizeof(proclock::Lock<TestPlatform>);
  for (uint32_t n = 0; n < kRoom; n++) member.abandon(std::to_string(n));
  CHECK_EQ(audit(member).locks, kRoom);
  CHECK_EQ(member.arena->marks_dropped(), 0u);
  const auto is_marked = [&](uint32_t n) {
    const Ref ref = member.open(std::to_string(n));
    const bool marked = ref.lock->abandoned.load(std::memory_order_relaxed) != 0;
    if (marked) CHECK_EQ(member.acquire(ref, Mode::kExclusive), Try::kAcquired);
    if (marked) member.end_thread({ref});  // as it was, and now the youngest
    if (!marked) member.unbind(ref);
    return marked;
  };
  member.unbind(member.open("one more"));
  CHECK_EQ(member.arena->marks_dropped(), 1u);
  audit(member);
  for (uint32_t n = 1; n < kRoom; n++) CHECK(is_marked(n));
  // A name without a mark goes before any that has one.
  member.unbind(member.open("and one more"));
  CHECK_EQ(member.arena->marks_dropped(), 1u);
  CHECK(!is_marked(0));
  CHECK_EQ(member.arena->marks_dropped(), 1u);
  audit(member);
}

TEST("names that are open do not give way, whatever is marked, and the table says that it is full") {
  harness::Segment segment;
  Member member(segment.name());
  TestPlatform::full_from = proclock::Layout<TestPlatform>::kLocks;
  TestPlatform::full_to = proclock::Layout<TestPlatform>::kStorages;
  member.abandon("marked");
  std::vector<Ref> refs;
  Ref ref;
  Status status;
  while (ok(status = member.arena->open_lock(name_of(std::to_string(refs.size())), 0, &ref)))
    refs.push_back(ref);
  CHECK_EQ(status, Status::kNoSpace);
  CHECK_EQ(member.arena->marks_dropped(), 1u);
  for (size_t n = 0; n < refs.size(); n++)
    CHECK_EQ(member.open(std::to_string(n)).lock_index, refs[n].lock_index);
  audit(member);
}

TEST("when the extents run out, names that nobody has open make room, as many as are needed") {
  harness::Segment segment;
  Member member(segment.name());
  TestPlatform::full_from = proclock::Layout<TestPlatform>::kExtents;
  TestPlatform::full_to = proclock::Layout<TestPlatform>::kBuckets;
  const auto name_of_length = [](char letter, size_t extents) {
    return std::string(proclock::kNameInlineBytes + extents * proclock::kExtentBytes, letter);
  };
  constexpr size_t kRoom = proclock::kPage / sizeof(proclock::Extent<TestPlatform>);
  member.abandon(name_of_length('m', 4));
  const Ref open = member.open(name_of_length('o', 4));
  for (size_t n = 0; n < (kRoom - 8) / 4; n++)
    member.unbind(member.open(name_of_length(static_cast<char>('0' + n), 4)));
  CHECK_EQ(audit(member).extents, kRoom);
  member.unbind(member.open(name_of_length('x', kRoom - 8)));
  CHECK_EQ(member.arena->marks_dropped(), 0u);
  audit(member);
  member.unbind(member.open(name_of_length('y', kRoom - 4)));
  CHECK_EQ(member.arena->marks_dropped(), 1u);
  audit(member);
  Ref none;
  CHECK_EQ(member.arena->open_lock(name_of(name_of_length('z', kRoom)), 0, &none), Status::kNoSpace);
  CHECK_EQ(member.open(name_of_length('o', 4)).lock_index, open.lock_index);
  CHECK_EQ(audit(member).extents, 4u);
}

}  // namespace
