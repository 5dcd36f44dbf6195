// The file of a segment on macOS: a regular file that is mapped shared. What shm_open() makes there can neither be locked nor be
// told from one that has lost its name, and has room for 31 characters in its name.
//
// Where it is. In the user's own cache folder, which nobody else can read and nothing clears while the machine runs; that of a
// group in /private/var/tmp. Their file systems do not tell A from a: capitals are escaped.
//
// Pages. A hole of the file that is touched when the disk is full is a SIGBUS. There is no call that fills holes, so zeros are
// written, and these must not hit a page that is in use: each process reserves pages anew (tables.h). Tables grow from their
// beginning on, so one word a table says up to where zeros were written. The words are at the end of the header's page:
//    F1  read the word, by acquire, after a fence: whoever was told of an entry (`reserved`) finds the word that was written before
//    F2  write zeros from there on. Nobody uses a page before F3, whoever is killed here leaves zeros, and no two are here for one
//        page: the core grows a table behind the latch alone, and elsewhere reserves only what it has been told of
//    F3  store the word, and a fence, before `reserved` is stored
//
// The open file. On Linux a mapping keeps it, and with it the token, also when the host closes all descriptors. Here a Mach port
// does (fileport_makeport), which no close() and no fork() reaches, and which ends with the process and with exec().
//
// The file survives the machine's restart, in whatever state it was on the disk. So the boot's id is in it: under another one, with
// nobody alive in it, it is made anew.
#pragma once

#include <sys/types.h>

#include "platform.h"

namespace proclock {

class DarwinPlatform::File {
 public:
  // There, the signal of a file-size limit goes to the process, not to the thread, so it can not be held back: the limit is
  // looked at instead (set_size, allocate).
  struct SizeSignalHeld {
    ~SizeSignalHeld() {}
  };

  static std::string path(const char* name);
  static int open(const char* name, int flags, mode_t mode);  // -1 and errno
  static int unlink(const char* name);                        // the same
  static bool set_size(int fd, size_t bytes);                 // false: errno says why
  // Each returns 0 or an errno. `base`: where it is mapped, if it is.
  static int allocate(int fd, char* base, size_t offset, size_t bytes);
  int allocate_without(char* base, size_t offset, size_t bytes);  // a descriptor
  static bool keep_from_children(char* base, size_t bytes);       // false: errno says why

  // It is mapped there, and stays open until let_go(), whatever becomes of the descriptor.
  int keep(int fd, char* base);
  void let_go();
  void forget_after_fork();

  static bool is_of_this_boot(int fd);
  static void sign(char* base);  // a new segment: this boot's, with a first page in each table

  // That two open files of it exclude each other by a byte, `locked`, which is locked exclusively through the one that is mapped
  // at `base`, and that a wake-up goes from one mapping of it to another. 0; ENOLCK or ENOTSUP: it is not so; or why that could
  // not be found out.
  static int prove(const char* name, char* base, int64_t locked);

 private:
  uint32_t port_ = 0;  // mach_port_t; MACH_PORT_NULL: none
  char* base_ = nullptr;
};

}  // namespace proclock
