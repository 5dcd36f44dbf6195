// One namespace: entering and leaving, names, growth, and tables that are full.
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "world.h"

namespace {

uint64_t file_blocks(const harness::Segment& segment) {
  struct stat file;
  CHECK_EQ(stat(segment.path().c_str(), &file), 0);
  return static_cast<uint64_t>(file.st_blocks) * 512;
}
uint64_t token_of(const Ref& ref) { return ref.lock->token.load(std::memory_order_relaxed); }

TEST("an idle namespace occupies at most 64 KiB") {
  harness::Segment segment;
  Member member(segment.name());
  const Ref ref = member.open("a name");
  CHECK_EQ(member.acquire(ref, Mode::kExclusive), Try::kAcquired);
  member.release(ref);
  member.unbind(ref);
  CHECK(file_blocks(segment) <= 64 * 1024);
  printf("  %llu bytes of memory\n", static_cast<unsigned long long>(file_blocks(segment)));
}

TEST("whoever attaches and detaches gives its entry back, and the next one gets it") {
  harness::Segment segment;
  Member first(segment.name());
  const uint32_t index = [&] {
    Member second(segment.name());
    CHECK(second.arena->self() != first.arena->self());
    return second.arena->self();
  }();
  for (int n = 0; n < 100; n++) CHECK_EQ(Member(segment.name()).arena->self(), index);
  CHECK_EQ(audit(first).processes, 1u);
}

TEST("a namespace that everybody has left keeps its names, their tokens and their marks") {
  harness::Segment segment;
  uint64_t token = 0;
  {
    Member member(segment.name());
    const Ref ref = member.open("kept");
    CHECK_EQ(member.acquire(ref, Mode::kExclusive), Try::kAcquired);
    token = token_of(ref);
    member.end_thread({ref});
  }
  Member member(segment.name());
  const Ref ref = member.open("kept");
  CHECK_EQ(token_of(ref), token);
  CHECK_EQ(ref.lock->abandoned.load(std::memory_order_relaxed), 1u);
}

TEST("more processes than the table holds are refused with kCapacity, and one that leaves makes room", 120) {
  harness::Segment segment;
  rlimit files = {};
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = files.rlim_max;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  if (files.rlim_cur < proclock::kProcessesMax + 64) {
    printf("  skipped: only %llu files may be open\n", static_cast<unsigned long long>(files.rlim_cur));
    return;
  }
  std::vector<std::unique_ptr<Member>> members;
  for (uint32_t n = 0; n < proclock::kProcessesMax; n++) {
    members.push_back(std::make_unique<Member>(segment.name()));
  }
  Member late;
  CHECK_EQ(late.enter(segment.name()), Status::kCapacity);
  members[1000]->leave();
  members[2000]->vanish();
  CHECK_EQ(late.enter(segment.name()), Status::kOk);
  Member later(segment.name());
  CHECK_EQ(audit(later).processes, proclock::kProcessesMax);
}

TEST("different strings are different locks, and the same string is the same lock") {
  harness::Segment segment;
  Member member(segment.name());
  Member other(segment.name());
  std::vector<std::string> names = {
      "", "a", "b", "aa", std::string("a\0b", 3), std::string("a\0c", 3), std::string(1, '\0')};
  // All lengths around the sizes of the entry and of the extents, differing in the last byte alone.
  for (const size_t size : {15, 16, 17, 75, 76, 77, 135, 136, 137, 10000}) {
    names.push_back(std::string(size, 'x'));
    names.push_back(std::string(size - 1, 'x') + 'y');
  }
  std::set<uint32_t> locks;
  for (const std::string& name : names) {
    const Ref ref = member.open(name);
    CHECK(locks.insert(ref.lock_index).second);
    CHECK_EQ(other.open(name).lock_index, ref.lock_index);
  }
  audit(member);
}

TEST("the same bytes as Latin-1 and as UTF-16 are two names, and lone surrogates are names like others") {
  harness::Segment segment;
  Member member(segment.name());
  const char16_t wide[] = {0x6161, 0xd83d, 0xde00, 0xd800};
  std::set<uint32_t> locks;
  for (const Name& name : {Name{wide, 2, false}, Name{wide, 2, true}, Name{wide + 1, 4, true},
                           Name{wide + 1, 2, true}, Name{wide + 3, 2, true}}) {
    Ref ref;
    CHECK_EQ(member.arena->open_lock(name, 0, &ref), Status::kOk);
    CHECK(locks.insert(ref.lock_index).second);
    proclock::LockName read;
    Member::Arena::Latched latched(*member.arena);
    CHECK(member.arena->read_name(latched, ref.lock_index, &read));
    CHECK_EQ(read.utf16, name.utf16);
    CHECK(read.bytes.size() == name.size && memcmp(read.bytes.data(), name.bytes, name.size) == 0);
  }
}

TEST("a name of the greatest length is read back whole, and a longer one is refused") {
  harness::Segment segment;
  Member member(segment.name());
  const std::string name(proclock::kNameBytesMax, 'z');
  const Ref ref = member.open(name);
  CHECK_EQ(member.open(name).lock_index, ref.lock_index);
  Ref other;
  CHECK_EQ(member.arena->open_lock(name_of(name + 'z'), 0, &other), Status::kCapacity);
  proclock::LockName read;
  Member::Arena::Latched latched(*member.arena);
  CHECK(member.arena->read_name(latched, ref.lock_index, &read));
  CHECK(read.bytes == name && !read.utf16);
}

TEST("200,000 names opened and closed one after another need no more memory than the first thousand did",
     120) {
  harness::Segment segment;
  Member member(segment.name());
  uint64_t early = 0;
  uint64_t times[2] = {0, 0};
  uint64_t first_token = 0;
  for (int n = 0; n < 200000; n++) {
    const uint64_t begun = TestPlatform::wall_ns();
    const Ref ref = member.open("a name that needs an extent, number " + std::to_string(n));
    if (n == 0) {
      for (int k = 0; k < 5; k++) {
        CHECK_EQ(member.acquire(ref, Mode::kExclusive), Try::kAcquired);
        member.release(ref);
      }
      first_token = token_of(ref);
    }
    member.unbind(ref);
    if (n == 1000) early = file_blocks(segment);
    if (n < 10000) times[0] += TestPlatform::wall_ns() - begun;
    if (n >= 190000) times[1] += TestPlatform::wall_ns() - begun;
  }
  CHECK_EQ(file_blocks(segment), early);
  CHECK(token_of(member.open("a name that needs an extent, number 0")) >= first_token);
  audit(member);
  printf("  open and close: %llu ns at first, %llu ns in the end\n",
         static_cast<unsigned long long>(times[0] / 10000),
         static_cast<unsigned long long>(times[1] / 10000));
}

TEST("the token of a name that was reclaimed and comes back does not go back, whatever the clock says") {
  harness::Segment segment;
  Member member(segment.name());
  const Ref ref = member.open("ahead");
  const uint64_t ahead = TestPlatform::wall_ns() + 3600000000000;  // an hour
  ref.lock->token.store(ahead, std::memory_order_relaxed);
  member.unbind(ref);
  for (int n = 0; n < 1000; n++) member.unbind(member.open(std::to_string(n)));
  CHECK(audit(member).locks < 1000);
  const Ref again = member.open("ahead");
  CHECK(token_of(again) >= ahead);
  CHECK_EQ(member.acquire(again, Mode::kExclusive), Try::kAcquired);
  CHECK(token_of(again) > ahead);
}

TEST(
    "a name with an abandoned mark is not reclaimed while there is space, and one that is open is not "
    "either") {
  harness::Segment segment;
  Member member(segment.name());
  const Ref open = member.open("open");
  member.abandon("abandoned");
  for (int n = 0; n < 1000; n++) member.unbind(member.open(std::to_string(n)));
  CHECK_EQ(member.open("open").lock_index, open.lock_index);
  const Ref again = member.open("abandoned");
  CHECK_EQ(again.lock->abandoned.load(std::memory_order_relaxed), 1u);
}

TEST(
    "200,000 names are open at once, a table that is full says kCapacity, and the cost does not grow with "
    "the number",
    120) {
  harness::Segment segment;
  Member member(segment.name());
  std::vector<Ref> refs;
  uint64_t begun = TestPlatform::wall_ns();
  for (uint32_t n = 0; n < proclock::kLocksMax; n++) {
    if (n == 1000 || n == 10000 || n == 200000) {
      printf("  up to %u names open: %llu ns each\n", n,
             static_cast<unsigned long long>((TestPlatform::wall_ns() - begun) / n));
    }
    refs.push_back(member.open(std::to_string(n)));
  }
  Ref one_more;
  CHECK_EQ(member.arena->open_lock(name_of("one more"), 0, &one_more), Status::kCapacity);
  begun = TestPlatform::wall_ns();
  for (int n = 0; n < 1000; n++) {
    CHECK_EQ(member.acquire(refs[150000], Mode::kExclusive), Try::kAcquired);
    member.release(refs[150000]);
    member.unbind(member.open("123456"));
  }
  printf("  with %u names open: acquire, release, open and close take %llu ns\n", proclock::kLocksMax,
         static_cast<unsigned long long>((TestPlatform::wall_ns() - begun) / 1000));
  CHECK_EQ(audit(member).locks, proclock::kLocksMax);
  member.unbind(refs[77]);
  CHECK_EQ(member.arena->open_lock(name_of("one more"), 0, &one_more), Status::kOk);
  CHECK_EQ(one_more.lock_index, refs[77].lock_index);
}

TEST("more slots than the table holds are refused with kCapacity, and one that is given back can be used",
     120) {
  harness::Segment segment;
  Member member(segment.name());
  const Ref ref = member.open("slots");
  Ref last;
  for (uint32_t n = 1; n < proclock::kSlotsMax; n++) last = member.bind(ref);
  Ref more;
  CHECK_EQ(member.arena->bind(ref.lock_index, 0, &more), Status::kCapacity);
  CHECK_EQ(member.arena->open_lock(name_of("another"), 0, &more), Status::kCapacity);
  CHECK_EQ(member.acquire(last, Mode::kExclusive), Try::kAcquired);
  CHECK_EQ(member.acquire(ref, Mode::kShared), Try::kBusy);
  member.release(last);
  member.unbind(last);
  CHECK_EQ(member.arena->bind(ref.lock_index, 0, &more), Status::kOk);
}

TEST("the file grows in chunks as entries are wanted, and not before") {
  harness::Segment segment;
  Member member(segment.name());
  const Ref ref = member.open("slots");
  uint64_t last = file_blocks(segment);
  int steps = 0;
  for (uint32_t n = 1; n < 20000; n++) {
    member.bind(ref);
    const uint64_t now = file_blocks(segment);
    CHECK(now >= last);
    steps += now != last;
    last = now;
    // What is used, a quarter more, and a page of everything.
    CHECK(now <= n * sizeof(proclock::Slot<TestPlatform>) * 5 / 4 + 64 * 1024 + proclock::kPage);
  }
  CHECK(steps > 3 && steps < 100);
}

TEST("many that create the namespace at once end up in the same one") {
  struct Page {
    std::atomic<int> ready{0};
    std::atomic<int> go{0};
    std::atomic<uint32_t> inside{0};
    Oracle oracle;
  };
  for (int round = 0; round < 5; round++) {
    harness::Segment segment;
    Page* page = harness::shared<Page>();
    std::vector<pid_t> children;
    for (int n = 0; n < 8; n++) {
      children.push_back(harness::start([&] {
        page->ready.fetch_add(1);
        while (page->go.load() == 0) sched_yield();
        Member self(segment.name());
        const Ref ref = self.open("contended");
        CHECK_EQ(acquire_waiting(self, ref, Mode::kExclusive), Status::kOk);
        page->oracle.enter(Mode::kExclusive);
        page->oracle.leave(Mode::kExclusive);
        self.release(ref);
        self.unbind(ref);
      }));
    }
    CHECK(harness::eventually([&] { return page->ready.load() == 8; }));
    page->go.store(1);
    for (const pid_t child : children) JOIN_OK(child);
    CHECK_EQ(page->oracle.violations.load(), 0u);
    Member member(segment.name());
    CHECK_EQ(audit(member).locks, 1u);
  }
}

}  // namespace
