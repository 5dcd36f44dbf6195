// What is macOS's own about a segment (native/platform/darwin/file.h): its place, its pages, its boot, and the proof of what all of it
// rests on. In a build for Linux there is none of it.
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "world.h"

#ifdef PROCLOCK_DARWIN

namespace {

using File = proclock::DarwinPlatform::File;
using Table = proclock::Layout<TestPlatform>;

bool is_there(const std::string& path) {
  struct stat file;
  return stat(path.c_str(), &file) == 0;
}

TEST("macOS: a segment is in the user's cache folder, one of a group is not, and capitals are escaped") {
  CHECK_EQ(setenv("PROCLOCK_SHIM_CACHE", "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/C/", 1), 0);
  CHECK(File::path("/proclock-501-app") ==
        "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/C/proclock-501-app");
  CHECK(File::path("/proclock-501-App.X_y") ==
        "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/C/proclock-501-+app.+x_y");
  CHECK(File::path("/proclock-g20-App") == PROCLOCK_GROUP_FOLDER "/proclock-g20-+app");
  CHECK_EQ(unsetenv("PROCLOCK_SHIM_CACHE"), 0);
  const std::string name = harness::Segment::prefix(getpid()) + "Name";
  {
    Member member(name.c_str());
    CHECK_EQ(member.acquire(member.open("a name"), Mode::kExclusive), Try::kAcquired);
  }
  CHECK(is_there(File::path(name.c_str())) && !is_there("/dev/shm" + name));
  CHECK_EQ(File::unlink(name.c_str()), 0);
}

TEST("macOS: where the user has no cache folder, that is said") {
  CHECK_EQ(setenv("PROCLOCK_SHIM_CACHE", std::string(5000, 'x').c_str(), 1), 0);
  TestPlatform::Memory memory;
  proclock::OpenFailure failure;
  CHECK_EQ(memory.open("/proclock-501-app", -1, &failure), Status::kSystem);
  CHECK_EQ(failure.error, ENOTSUP);
}

TEST("macOS: a page that somebody uses is not cleared when another process reserves it") {
  harness::Segment segment;
  Member first(segment.name());
  std::vector<Ref> refs;
  for (int n = 0; n < 500; n++) refs.push_back(first.open("name " + std::to_string(n)));
  CHECK_EQ(first.acquire(refs.back(), Mode::kExclusive), Try::kAcquired);
  JOIN_OK(harness::start([&] {
    Member second(segment.name());
    for (size_t at : {Table::kProcesses, Table::kLocks, Table::kStorages, Table::kSlots, Table::kExtents,
                      Table::kBuckets}) {
      CHECK_EQ(second.memory.reserve(at, 16 * proclock::kPage), Status::kOk);
    }
    for (int n = 0; n < 500; n++) {
      const Ref ref = second.open("name " + std::to_string(n));
      CHECK_EQ(second.acquire(ref, Mode::kExclusive), n == 499 ? Try::kBusy : Try::kAcquired);
      if (n != 499) second.release(ref);
      second.unbind(ref);
    }
    audit(second);
  }));
  audit(first);
}

TEST("macOS: what another boot left is made anew, unless somebody lives in it") {
  harness::Segment segment;
  CHECK_EQ(setenv("PROCLOCK_SHIM_BOOT", "11111111-2222-3333-4444-555555555555", 1), 0);
  uint64_t number;
  {
    Member member(segment.name());
    number = member.memory.number();
    member.abandon("held when the machine went down");
    Member other(segment.name());
    number = other.memory.number();
    CHECK_EQ(setenv("PROCLOCK_SHIM_BOOT", "11111111-2222-3333-4444-555555555556", 1), 0);
    Member third(segment.name());
    CHECK(third.memory.number() > number);
    number = third.memory.number();
  }
  Member member(segment.name());
  CHECK(member.memory.number() < number);
  CHECK_EQ(member.open("held when the machine went down").lock->abandoned.load(std::memory_order_relaxed),
           0u);
  audit(member);
}

Status open_with(const char* variable, int* error) {
  harness::Segment segment;
  CHECK_EQ(setenv(variable, "1", 1), 0);
  TestPlatform::Memory memory;
  proclock::OpenFailure failure;
  const Status status = memory.open(segment.name(), -1, &failure);
  *error = failure.error;
  memory.reset();
  CHECK_EQ(unsetenv(variable), 0);
  // Nothing was made that another one could take for a segment.
  Member member(segment.name());
  return status;
}

TEST("macOS: where byte locks exclude nobody there is no segment") {
  int error = 0;
  CHECK_EQ(open_with("PROCLOCK_SHIM_NO_LOCKS", &error), Status::kSystem);
  CHECK_EQ(error, ENOLCK);
}

TEST("macOS: where a wake-up does not go from one mapping to another there is no segment") {
  int error = 0;
  CHECK_EQ(open_with("PROCLOCK_SHIM_NO_WAKE", &error), Status::kSystem);
  CHECK_EQ(error, ENOTSUP);
}

TEST("macOS: a file-size limit is an error before anything is written, and no signal") {
  // The signal's default would end this process.
  harness::Segment segment;
  Member member(segment.name());
  rlimit limit = {4096, RLIM_INFINITY};
  CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  CHECK_EQ(member.memory.reserve(Table::kLocks, 64 * proclock::kPage), Status::kNoSpace);
  limit.rlim_cur = RLIM_INFINITY;
  CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

}  // namespace

#endif  // PROCLOCK_DARWIN
