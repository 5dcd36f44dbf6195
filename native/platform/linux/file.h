// The file of a segment on Linux: shm_open(), that is, a file of a tmpfs, whose pages posix_fallocate() makes exist. Its open
// file lives as long as a mapping of it does, and with it the token.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include "platform.h"
#include "size_signal.h"

namespace proclock {

class LinuxPlatform::File {
 public:
  using SizeSignalHeld = HoldSizeSignal;

  static std::string path(const char* name) { return std::string("/dev/shm") + name; }
  static int open(const char* name, int flags, mode_t mode);  // -1 and errno
  static int unlink(const char* name);                        // the same
  static bool set_size(int fd, size_t bytes) { return ftruncate(fd, static_cast<off_t>(bytes)) == 0; }
  // Each returns 0 or an errno. `base`: where it is mapped, if it is.
  static int allocate(int fd, char* base, size_t offset, size_t bytes);
  int allocate_without(char* base, size_t offset, size_t bytes);  // a descriptor
  static bool keep_from_children(char* base, size_t bytes);       // false: errno says why

  // What macOS needs, and Linux does not.
  int keep(int, char*) { return 0; }
  void let_go() {}
  void forget_after_fork() {}
  static bool is_of_this_boot(int) { return true; }
  static void sign(char*) {}
  static int prove(const char*, char*, int64_t) { return 0; }
};

}  // namespace proclock
