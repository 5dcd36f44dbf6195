/* The file of a namespace: opened, made, entered, and given back by `prune`, all by name.
 *
 * Why it holds. A segment is entered under its attach lock, shared, and given back under the same lock, exclusive.
 * Whoever is entering keeps the lock until its token is locked. So a pruner that has the lock, and finds no token,
 * knows that nobody is in, and that nobody is on the way but those who wait for the lock. These look at st_nlink when
 * they have it, and find 0: the name is gone, or another file's, and they open by name again. Whoever finds 1 while it
 * has the lock keeps it at 1, since every pruner would need the lock. Hence a file with somebody in it has the name,
 * and there is one file of a name at a time.
 *
 * Steps. Opening:
 *    O1  open by name; if there is none, create it, exclusively; if somebody was faster, open it
 *    O2  lock the attach byte, shared
 *    O3  not made yet: unlock, lock it exclusively, look again (O4 first, since macOS makes it by name as well), make
 *        it, and go down to shared in one step. Unlock
 *        first, since two that wait for each other's shared lock would wait for ever
 *    O4  st_nlink is 0: close, again from O1. After the last time that the lock was taken: O3 lets go of it
 *    O5  N1, N2: a number, and its token
 *    O6  unlock the attach byte
 * Pruning, through a description of its own, since the tokens of the own one are not seen:
 *    P1  open by name; there is none: done
 *    P2  lock the attach byte, exclusively
 *    P3  st_nlink is 0: done, somebody else has given it back
 *    P4  some token is locked: done, refused
 *    P5  unlink the name
 *    P6  close, and with it unlock
 *
 * NP processes open, use and leave, or prune, for ever. They are killed at any step, KILLS times, and start anew.
 *
 * Abstracted, and why that is sound:
 *   the kernel  drops locks and descriptors of the dead in one step. A lock may be waited for for ever; who gives up
 *               closes, as the dead do.
 *   files       one that has no name and that nobody has open is free, and the smallest is taken.
 *   others      who may remove the file by hand, without the lock, may have two segments alive: no model of ours shows
 *               otherwise. Between P3 and P5 the name is this file's, as long as all unlink in this way.
 *   content     is what somebody made, or nothing: that a file of another layout, or a damaged one, is made again only
 *               if no token is locked is not here.
 *   leaving     is one step: the token and the descriptor go together.
 *
 * Claims. single: no two live processes use different files of the name at the same time. kept: a file that somebody
 * uses is not made again. No invalid end state: nobody waits for ever.
 *
 * Switches: NP, KILLS; MUTANT_x, see mutants.json.
 */
#ifndef NP
#define NP 3
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define FILES (NP + 2)

#define SHARED 1
#define EXCLUSIVE 2

/* files: 0 is none */
byte name = 0;          /* the file that has it */
bit made[FILES];
/* processes: the kernel's */
byte file[NP];          /* that it has open */
byte attach[NP];        /* how it has locked the attach byte of that */
bit token[NP];          /* a token of it is locked there */
bit dead[NP];

/* What the checker knows. */
bit uses[NP];
byte kills = 0;

hidden byte single, kept;

#if NP == 2
#define ANY(p) (p(0) || p(1))
#else
#define ANY(p) (p(0) || p(1) || p(2))
#endif
#define HAS_F(i) (file[i] == f)
#define BESIDE(i) (i != me && file[i] == file[me])
#define SHUTS_OUT(i) (BESIDE(i) && attach[i] == EXCLUSIVE)
#define LOCKS(i) (BESIDE(i) && attach[i] != 0)
#define TOKEN(i) (BESIDE(i) && token[i])
#define USES_OURS(i) (BESIDE(i) && uses[i])
#define ELSEWHERE(i) (i != me && uses[i] && file[i] != file[me])
#define LINKED (name == file[me])

inline close_file() { token[me] = 0; attach[me] = 0; file[me] = 0 }

proctype P(byte me) {
  byte f = 0;
  bit was = 0;

start:
  {
    skip;
idle:
    if
    :: goto O1
    :: goto P1
    fi;

O1:
    atomic {
      if
      :: name != 0 -> file[me] = name; goto O2
      :: else
      fi
    };
    atomic {
      if
      :: name == 0 ->
        f = 1;
        do :: ANY(HAS_F) -> f++ :: else -> break od;
        made[f] = 0; name = f; file[me] = f; f = 0
      :: else -> goto O1
      fi
    };
O2:
#ifdef MUTANT_LOOK_BEFORE_LOCK
    was = LINKED;
#endif
    atomic { !ANY(SHUTS_OUT) -> attach[me] = SHARED };
#ifdef MUTANT_LOOK_BEFORE_MAKING
    was = LINKED;
#endif
O3:
    if
    :: made[file[me]] -> goto O4
    :: else
    fi;
#ifndef MUTANT_UPGRADE
    attach[me] = 0;
#endif
    atomic { !ANY(LOCKS) -> attach[me] = EXCLUSIVE };
    atomic {
      if
#ifdef MUTANT_MADE_AT_FIRST_LOOK
      :: true -> assert(kept || !ANY(USES_OURS))
#else
      :: !made[file[me]] -> assert(kept || !ANY(USES_OURS))
      :: else
#endif
      fi
    };
    made[file[me]] = 1;
    attach[me] = SHARED;
O4:
    atomic {
      if
#if defined(MUTANT_NO_LOOK)
      :: true
#elif defined(MUTANT_LOOK_BEFORE_LOCK) || defined(MUTANT_LOOK_BEFORE_MAKING)
      :: was
      :: !was -> close_file(); goto O1
#else
      :: LINKED
      :: !LINKED -> close_file(); goto O1
#endif
      fi;
      was = 0
    };
#ifdef MUTANT_UNLOCKED_EARLY
    attach[me] = 0;
#endif
O5:
    token[me] = 1;
O6:
    attach[me] = 0;
    atomic { uses[me] = 1; assert(single || !ANY(ELSEWHERE)) };
    atomic { uses[me] = 0; close_file(); goto idle };

P1:
    atomic {
      if
      :: name != 0 -> file[me] = name
      :: else -> goto idle
      fi
    };
#ifdef MUTANT_ASKED_BEFORE_LOCK
    was = ANY(TOKEN);
#endif
P2:
#ifdef MUTANT_PRUNES_SHARED
    atomic { !ANY(SHUTS_OUT) -> attach[me] = SHARED };
#else
    atomic { !ANY(LOCKS) -> attach[me] = EXCLUSIVE };
#endif
P3:
    atomic {
      if
#ifdef MUTANT_PRUNES_UNLOOKED
      :: true
#else
      :: !LINKED -> was = 0; close_file(); goto idle
      :: else
#endif
      fi
    };
P4:
    atomic {
      if
#if defined(MUTANT_PRUNES_ALIVE)
      :: true
#elif defined(MUTANT_ASKED_BEFORE_LOCK)
      :: was -> was = 0; close_file(); goto idle
      :: !was
#else
      :: ANY(TOKEN) -> close_file(); goto idle
      :: else
#endif
      fi
    };
#ifdef MUTANT_UNLOCKED_BEFORE_UNLINK
    attach[me] = 0;
#endif
P5:
    name = 0;
P6:
    atomic { close_file(); goto idle }
  } unless { dead[me] };
  atomic { f = 0; was = 0; dead[me] = 0; goto start }
}

#define KILL(i) \
  :: atomic { kills < KILLS && !dead[i] -> kills++; dead[i] = 1; uses[i] = 0; token[i] = 0; attach[i] = 0; file[i] = 0 }

active proctype Killer() {
end:
  do
  KILL(0)
  KILL(1)
#if NP > 2
  KILL(2)
#endif
  od
}

init {
  byte i = 0;
  atomic {
    do :: i < NP -> run P(i); i++ :: else -> break od;
    i = 0
  }
}
