// Entering: other layout versions, other users' leases, and who counts as alive.
#include <fcntl.h>
#include <sys/stat.h>

#include <thread>

#include "world.h"

namespace {

constexpr off_t kTokens = off_t{1} << 40;   // the first byte of the tokens of every layout version
constexpr off_t kTokens1 = off_t{1} << 20;  // so many of them there are in version 1

struct flock range_of(short type, off_t start, off_t length) {
  struct flock range = {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = start;
  range.l_len = length;
  return range;
}
// The namespace's file, opened once more.
struct File {
  explicit File(const harness::Segment& segment, int flags = 0)
      : fd(::open(segment.path().c_str(), O_RDWR | O_CLOEXEC | flags, 0600)) {
    CHECK(fd >= 0);
  }
  ~File() { close(fd); }
  bool lock(short type, off_t start) const {
    struct flock range = range_of(type, start, 1);
    return fcntl(fd, F_OFD_SETLK, &range) == 0;
  }
  bool sees_locked(off_t start, off_t length) const {
    struct flock range = range_of(F_WRLCK, start, length);
    CHECK_EQ(fcntl(fd, F_OFD_GETLK, &range), 0);
    return range.l_type != F_UNLCK;
  }
  int fd;
};

// As a process of version 1 makes it.
void make_version_1(const File& file) {
  CHECK_EQ(fchmod(file.fd, 0600), 0);
  CHECK_EQ(ftruncate(file.fd, 1 << 20), 0);
  const struct {
    uint64_t magic = proclock::kMagic;
    uint32_t version = 1, abi = proclock::abi_fingerprint();
    uint64_t bytes = 1 << 20;
  } head;
  CHECK_EQ(pwrite(file.fd, &head, sizeof head, 0), static_cast<ssize_t>(sizeof head));
}

TEST(
    "a segment of layout 1 is refused as long as a process of that version lives, and made anew afterwards") {
  harness::Segment segment;
  File file(segment, O_CREAT);
  make_version_1(file);
  for (const off_t token : {off_t{0}, off_t{77}, kTokens1 - 1}) {
    CHECK(file.lock(F_WRLCK, kTokens + token));
    TestPlatform::Memory memory;
    proclock::OpenFailure failure;
    CHECK_EQ(memory.open(segment.name(), -1, &failure), Status::kIncompatible);
    CHECK_EQ(failure.found_version, 1u);
    CHECK(file.lock(F_UNLCK, kTokens + token));
  }
  Member member(segment.name());
  CHECK_EQ(member.arena->header().layout_version.load(std::memory_order_relaxed), proclock::kLayoutVersion);
  CHECK_EQ(member.acquire(member.open("a name"), Mode::kExclusive), Try::kAcquired);
}

TEST("who only finds a segment makes none, and leaves what nobody uses as it is") {
  harness::Segment segment;
  const auto find = [&] {
    TestPlatform::Memory memory;
    proclock::OpenFailure failure;
    return memory.open(segment.name(), -1, &failure, proclock::Opening::kFind);
  };
  const auto size = [&] {
    struct stat file;
    return stat(segment.path().c_str(), &file) == 0 ? static_cast<int64_t>(file.st_size) : -1;
  };
  CHECK_EQ(find(), Status::kRemoved);
  CHECK_EQ(size(), -1);
  {
    File file(segment, O_CREAT);
    CHECK_EQ(fchmod(file.fd, 0600), 0);
    CHECK_EQ(find(), Status::kRemoved);
    CHECK_EQ(size(), 0);
    make_version_1(file);
    CHECK_EQ(find(), Status::kRemoved);
    CHECK_EQ(size(), 1 << 20);
    CHECK(file.lock(F_WRLCK, kTokens + 77));
    CHECK_EQ(find(), Status::kIncompatible);
  }
  {
    Member member(segment.name());
    CHECK_EQ(find(), Status::kOk);
  }
  CHECK_EQ(find(), Status::kOk);
}

TEST("a process of layout 1 sees that we are alive, whatever our number is") {
  harness::Segment segment;
  Member first(segment.name());
  File file(segment);
  CHECK(file.sees_locked(kTokens, kTokens1));
  for (const uint64_t number : {uint64_t{5}, uint64_t{kTokens1} - 2, uint64_t{kTokens1} - 1,
                                uint64_t{kTokens1}, uint64_t{1} << 40, proclock::kNumbersMax - 2}) {
    first.arena->header().last_number.store(number, std::memory_order_relaxed);
    Member one(segment.name());
    Member two;
    const Status status = two.enter(segment.name());
    CHECK(ok(status) || number + 2 >= proclock::kNumbersMax);
    first.vanish();
    CHECK(file.sees_locked(kTokens, kTokens1));
    if (two.arena != nullptr) CHECK_EQ(two.memory.liveness(one.memory.number()), proclock::Liveness::kAlive);
    const uint64_t gone = one.memory.number();
    one.leave();
    if (two.arena != nullptr) {
      CHECK_EQ(two.memory.liveness(gone), proclock::Liveness::kDead);
      CHECK(file.sees_locked(kTokens, kTokens1));
      two.leave();
    }
    CHECK(!file.sees_locked(kTokens, kTokens1));
    if (number + 3 < proclock::kNumbersMax) CHECK_EQ(first.enter(segment.name()), Status::kOk);
  }
}

TEST("a number whose token somebody has is passed by, and numbers that have run out are found corrupt") {
  harness::Segment segment;
  Member first(segment.name());
  File file(segment);
  const uint64_t last = first.memory.number();
  CHECK(file.lock(F_WRLCK, kTokens + static_cast<off_t>(last) + 1));
  CHECK_EQ(Member(segment.name()).memory.number(), last + 2);
  first.arena->header().last_number.store(~uint64_t{0} - 5, std::memory_order_relaxed);
  Member none;
  CHECK_EQ(none.enter(segment.name()), Status::kCorrupt);
}

TEST("a lease on the segment's file is refused at once, and nobody waits for it to be given up") {
  harness::Segment segment;
  {
    Member made(segment.name());
  }
  struct Page {
    std::atomic<int> state{0};
  };
  Page* page = harness::shared<Page>();
  const pid_t other = harness::start([&] {
    signal(SIGIO, SIG_IGN);
    File file(segment);
    page->state.store(fcntl(file.fd, F_SETLEASE, F_WRLCK) == 0 ? 1 : 2);
    for (;;) pause();
  });
  CHECK(harness::eventually([&] { return page->state.load() != 0; }));
  if (page->state.load() == 1) {
    const uint64_t begun = harness::now_ms();
    Member member;
    CHECK_EQ(member.enter(segment.name()), Status::kPermission);
    CHECK(harness::now_ms() - begun < 2000);
  } else {
    printf("  skipped: no lease to be had here\n");
  }
  KILL_AND_JOIN(other);
  Member member(segment.name());
}

// ---- who is alive

// A process that holds the lock exclusively, and then does something.
template <class Function>
pid_t holder(const harness::Segment& segment, std::atomic<int>* holds, Function then) {
  return harness::start([&, holds] {
    Member self(segment.name());
    CHECK_EQ(self.acquire(self.open("lock"), Mode::kExclusive), Try::kAcquired);
    holds->store(1);
    then();
  });
}
struct Scene {
  Scene() : boss(segment.name()), ref(boss.open("lock")) {}
  bool is_free() {
    boss.look_at_all();
    if (boss.acquire(ref, Mode::kExclusive) != Try::kAcquired) return false;
    CHECK_EQ(ref.lock->abandoned.load(std::memory_order_relaxed), 1u);
    return true;
  }
  harness::Segment segment;
  Member boss;
  Ref ref;
  std::atomic<int>* holds = harness::shared<std::atomic<int>>();
  std::atomic<int>* pid = harness::shared<std::atomic<int>>();
};

TEST("a holder that has become another program by exec() is dead, though its pid lives on") {
  Scene s;
  const pid_t other = holder(s.segment, s.holds, [] { execlp("sleep", "sleep", "60", nullptr); });
  CHECK(harness::eventually([&] { return s.holds->load() == 1 && s.is_free(); }));
  CHECK_EQ(kill(other, 0), 0);
  KILL_AND_JOIN(other);
}

TEST(
    "a zombie is dead, though the child of its raw fork() has its token still, and so is one whose pid is "
    "gone") {
  Scene s;
  const pid_t other = holder(s.segment, s.holds, [&] {
    const pid_t child = fork();
    if (child == 0) {
      for (;;) pause();
    }
    s.pid->store(child);
    for (;;) pause();
  });
  CHECK(harness::eventually([&] { return s.pid->load() != 0; }));
  proclock::ProcessIdentity identity;
  uint64_t number;
  CHECK(s.boss.arena->read_process(2, &identity, &number));
  CHECK_EQ(identity.pid, other);
  CHECK_EQ(s.boss.memory.liveness(identity), proclock::Liveness::kAlive);
  CHECK_EQ(kill(other, SIGKILL), 0);
  siginfo_t info;
  CHECK_EQ(waitid(P_PID, static_cast<id_t>(other), &info, WEXITED | WNOWAIT), 0);
  CHECK_EQ(s.boss.memory.liveness(number), proclock::Liveness::kAlive);
  CHECK_EQ(s.boss.memory.liveness(identity), proclock::Liveness::kDead);
  CHECK(s.is_free());
  CHECK(harness::killed(harness::join(other)));
  CHECK_EQ(s.boss.memory.liveness(identity), proclock::Liveness::kDead);
  kill(s.pid->load(), SIGKILL);
}

TEST(
    "a pid that another process has by now is not the one that was meant, and what can not be told is "
    "alive") {
  Scene s;
  proclock::ProcessIdentity identity = TestPlatform::self();
  CHECK_EQ(s.boss.memory.liveness(identity), proclock::Liveness::kAlive);
  identity.start_time++;
  CHECK_EQ(s.boss.memory.liveness(identity), proclock::Liveness::kDead);
  identity.pid_ns++;
  CHECK_EQ(s.boss.memory.liveness(identity), proclock::Liveness::kAlive);
  identity.pid_ns = 0;
  CHECK_EQ(s.boss.memory.liveness(identity), proclock::Liveness::kAlive);
  identity = TestPlatform::self();
  identity.start_time = 0;
  CHECK_EQ(s.boss.memory.liveness(identity), proclock::Liveness::kAlive);
}

bool first_thread_has_ended(pid_t pid) {
  char text[256] = "";
  FILE* file = fopen(("/proc/" + std::to_string(pid) + "/stat").c_str(), "r");
  CHECK(file != nullptr && fgets(text, sizeof text, file) != nullptr);
  fclose(file);
  return strncmp(strrchr(text, ')'), ") Z", 3) == 0;
}

TEST("a process whose first thread has ended, and others have not, is alive") {
  Scene s;
  const pid_t other = holder(s.segment, s.holds, [&] {
    new std::thread([&] {
      usleep(100000);
      s.pid->store(1);
      for (;;) pause();
    });
    pthread_exit(nullptr);
  });
  CHECK(harness::eventually([&] { return s.pid->load() == 1; }));
  CHECK(first_thread_has_ended(other));
  CHECK(!s.is_free());
  KILL_AND_JOIN(other);
  CHECK(s.is_free());
}

// ---- a host that closes what is not its own

int descriptor_of(const harness::Segment& segment) {
  for (int fd = 3; fd < 100; fd++) {
    char link[64], target[300] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, target, sizeof target - 1) > 0 && segment.path() == target) return fd;
  }
  return -1;
}

TEST("a host that closes our descriptor, and uses its number again, loses neither its file nor its locks") {
  harness::Segment segment;
  Member host(segment.name());
  Ref ref = host.open("lock");
  CHECK_EQ(host.acquire(ref, Mode::kExclusive), Try::kAcquired);
  const int fd = descriptor_of(segment);
  CHECK(fd >= 0);
  char path[] = "/tmp/proclock-test-XXXXXX";
  const int users = mkstemp(path);
  unlink(path);
  CHECK_EQ(dup2(users, fd), fd);
  Member other(segment.name());
  const Ref theirs = other.open("lock");
  other.look_at_all();
  CHECK_EQ(other.acquire(theirs, Mode::kExclusive), Try::kBusy);  // the mapping has the token
  // Pages that others have made since, and more.
  std::vector<Ref> refs;
  for (int n = 0; n < 2000; n++)
    refs.push_back(other.open("a name that needs an extent, number " + std::to_string(n)));
  Ref seen;
  CHECK_EQ(host.arena->open_lock(name_of("a name that needs an extent, number 1999"), 0, &seen), Status::kOk);
  CHECK_EQ(host.acquire(seen, Mode::kExclusive), Try::kAcquired);
  host.release(seen);
  CHECK(!other.arena->is_corrupt());
  // Whom it asks about is alive: it can not know better.
  CHECK_EQ(host.memory.liveness(other.memory.number()), proclock::Liveness::kAlive);
  host.release(ref);
  host.vanish();
  struct stat file;
  CHECK(fstat(fd, &file) == 0 && file.st_size == 0);
  other.look_at_all();
  CHECK_EQ(other.acquire(theirs, Mode::kExclusive), Try::kAcquired);
}

}  // namespace
