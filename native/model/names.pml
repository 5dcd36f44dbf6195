/* Names and the pool of storages, as in names.h and recovery.h: an entry that is made, reclaimed and made again for
 * another name, storages that go through the pool from lock to lock, and the latch's owner dying behind the latch.
 *
 * NP processes open one of NAMES names, hold it, release it, close it, and replace its storage as a recovery does, for ever.
 * There are ENTRIES entries, and one name more. So opening one reclaims the entry of another; with two entries, while the
 * second lock is held, replaced, or has a straggler, and storages go from one lock to the other. Each process opens two
 * of the three names then: one that only it opens, and the one in the middle.
 *
 * Behind the latch each store to a fact (the name of an entry, its gate, its token, the floor; the lock of a slot) is a
 * step of its own, since a death after it leaves the rest undone. The lists are derived; a rebuild makes them anew.
 *
 * Abstracted, and why that is sound:
 *   holding     is exclusive, and the slot protocol is one step to get in, one to refer no more (slots.pml). A slot may
 *               refer to a storage that was replaced meanwhile (a straggler); it touches that storage once more
 *               when it goes on.
 *   tokens      count up to TOKENS, then nobody acquires. The clock from which a new entry starts does not move: it is
 *               no help then, and the floor has to do alone.
 *   the index   finds every entry that has a name: a chain of buckets under the latch, made anew by a rebuild.
 *   no room     whoever finds no entry, or no storage, gives up.
 *   which entry the first free one; of those that can be reclaimed any, where the code takes the one unused for longest.
 *
 * Switches: NP, KILLS, TOKENS, ENTRIES (1 or 2); MUTANT_x, see mutants.json.
 */
#ifndef NP
#define NP 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef TOKENS
#define TOKENS 3
#endif
#ifndef ENTRIES
#define ENTRIES 1
#endif
#define NAMES (ENTRIES + 1)
#if ENTRIES == 1
#define FIRST_NAME 0
#else
#define FIRST_NAME (me % 2)
#endif
#define NS (ENTRIES + NP + 1)
#define NONE 15

/* entries: facts */
byte name[ENTRIES];     /* NONE: not in use */
byte gate[ENTRIES];
byte token[ENTRIES];
bit mark[ENTRIES];
byte floor = 0;
bit recovering[ENTRIES]; /* of the gate */
/* slots: facts */
byte lock[NP];
byte word[NP];          /* the storage that it refers to */
bit held[NP];
/* derived: which storages are at hand, and which a lock keeps since a slot refers to them */
bit pooled[NS];
byte retired[NS];       /* the lock's entry, or NONE */

byte latch = NONE;
bit dead[NP];
byte kills = 0;

/* What the checker knows. */
byte wants[NP];         /* the name that the process has opened */
byte greatest[NAMES];   /* the last token that was granted under this name */
bit owed[NAMES];        /* the mark that this name has to have */

#ifdef BREADTH_FIRST
#define exclusion 0
#define storage 0
#define tokens 0
#define abandoned 0
#else
hidden byte exclusion, storage, tokens, abandoned;
#endif

#if NP == 2
#define ANY(p) (p(0) || p(1))
#else
#define ANY(p) (p(0) || p(1) || p(2))
#endif
#if ENTRIES == 1
#define ANY_ENTRY(p) p(0)
#else
#define ANY_ENTRY(p) (p(0) || p(1))
#endif
#define HAS(i) (lock[i] == lock[me] && word[i] == s)
#define HOLDS(i) (lock[i] == e && held[i])
#define BOUND(i) (lock[i] == e)
#define NAMES_S(i) (word[i] == s)
#define NAMES_S_OF(i) (lock[i] == which && word[i] == s)
#define GATE_S(i) (name[i] != NONE && gate[i] == s)
#define IS_NAMED(i) (name[i] == want)
#define BESIDE(i) (i != me && !dead[i] && held[i] && wants[i] == wants[me])
#define GONE(i) (dead[i] && lock[i] != NONE)

/* The smallest storage at hand; s == NS: none. */
inline allocate() {
  s = 0;
  do
  :: s < NS && !pooled[s] -> s++
  :: else -> break
  od
}

/* Initialised: nobody may be about to touch it, and no lock may have it. */
inline initialise() { assert(storage || (!ANY(NAMES_S) && !ANY_ENTRY(GATE_S))) }

/* What a rebuild makes of the facts. */
inline rebuild() {
  s = 0;
  do
  :: s < NS ->
    retired[s] = NONE;
    if
    :: ANY_ENTRY(GATE_S) -> pooled[s] = 0
#ifndef MUTANT_REBUILD_IGNORES_SLOTS
    :: !ANY_ENTRY(GATE_S) && NAMES_S(0) -> pooled[s] = 0; retired[s] = lock[0]
    :: !ANY_ENTRY(GATE_S) && !NAMES_S(0) && NAMES_S(1) -> pooled[s] = 0; retired[s] = lock[1]
#if NP > 2
    :: !ANY_ENTRY(GATE_S) && !NAMES_S(0) && !NAMES_S(1) && NAMES_S(2) -> pooled[s] = 0; retired[s] = lock[2]
#endif
#endif
    :: else -> pooled[s] = 1
    fi;
    s++
  :: else -> break
  od;
  s = 0
}

/* Those that no slot of the lock refers to any more. */
inline reuse_retired(which) {
  s = 0;
  do
  :: s < NS ->
    if
#if defined(MUTANT_RETIRED_TO_POOL)
    :: retired[s] == which -> retired[s] = NONE; pooled[s] = 1
#elif defined(MUTANT_RETIRED_OF_ALL)
    :: retired[s] != NONE && !ANY(NAMES_S_OF) -> retired[s] = NONE; pooled[s] = 1
#else
    :: retired[s] == which && !ANY(NAMES_S_OF) -> retired[s] = NONE; pooled[s] = 1
#endif
    :: else
    fi;
    s++
  :: else -> break
  od;
  s = 0
}

proctype P(byte me) {
  byte want = 0, e = 0, s = 0, old = 0, d = 0, why = 0;
  bit rebuilt = 0;

start:
  dead[me] = 0;
  {
    skip;
closed:
    atomic {
      if
      :: want = FIRST_NAME
      :: want = FIRST_NAME + 1
      fi;
      why = 1
    };
enter:
    atomic {
      (latch == NONE || dead[latch]) -> rebuilt = latch != NONE; latch = me;
#ifdef MUTANT_NO_REBUILD
      rebuilt = 0;
#endif
      if :: rebuilt -> rebuild() :: else fi;
      e = 0;
      do :: e < ENTRIES -> recovering[e] = 0; e++ :: else -> break od;
      e = 0
    };
    /* the dead: marked, if they held; the storage replaced; the slot unbound */
recover:
    atomic {
      if
      :: GONE(0) -> d = 0
      :: GONE(1) -> d = 1
#if NP > 2
      :: GONE(2) -> d = 2
#endif
      :: else -> goto recovered
      fi;
      e = lock[d];
      if
      :: word[d] != NONE && word[d] == gate[e] -> allocate()
      :: else -> goto unbind
      fi;
      if :: s == NS -> goto leave :: else initialise() fi;
      pooled[s] = 0;
      if :: held[d] -> mark[e] = 1 :: else fi
    };
    atomic { old = gate[e]; gate[e] = s; retired[old] = e; word[d] = NONE; held[d] = 0; old = 0; reuse_retired(e) };
unbind:
    atomic { lock[d] = NONE; word[d] = NONE; held[d] = 0; wants[d] = NONE; d = 0; reuse_retired(e); e = 0; goto recover };
recovered:
    atomic {
      rebuilt = 0;
      if
      :: why == 1
      :: why == 2 -> goto replace
      :: why == 3 -> goto close
      fi;
      /* open_lock(): find_lock() */
      e = 0;
      do
      :: e < ENTRIES && !IS_NAMED(e) -> e++
      :: else -> break
      od;
      if :: e < ENTRIES -> goto bind :: else -> e = 0 fi;
      /* create_lock(): allocate_lock() */
      do
      :: e < ENTRIES && name[e] != NONE -> e++
      :: else -> break
      od;
      if :: e < ENTRIES -> goto create :: else -> e = 0 fi;
      if
#if ENTRIES > 1
      :: e = 1
#endif
      :: e = 0
      fi;
      if
#if defined(MUTANT_RECLAIM_BOUND)
      :: !mark[e]
#elif defined(MUTANT_RECLAIM_ABANDONED)
      :: !ANY(BOUND)
#elif defined(MUTANT_RECLAIM_OTHERS_BOUND)
      :: !mark[e] && (!ANY(BOUND) || e == 1)
#else
      :: !mark[e] && !ANY(BOUND)
#endif
      :: else -> why = 4; goto leave
      fi
    };
    /* reclaim_lock() */
#ifdef MUTANT_FLOOR_AFTER_NAME
    d_step { name[e] = NONE; pooled[gate[e]] = 1 };
    if :: token[e] > floor -> floor = token[e] :: else fi;
#else
    if :: token[e] > floor -> floor = token[e] :: else fi;
    d_step { name[e] = NONE; pooled[gate[e]] = 1 };
#endif
    /* create_lock() */
create:
    atomic {
      allocate();
      if :: s == NS -> s = 0; why = 4; goto leave :: else initialise() fi;
      pooled[s] = 0
    };
#ifdef MUTANT_NAME_FIRST
    name[e] = want;
#endif
#ifdef MUTANT_FLOOR_IGNORED
    token[e] = 0;
#else
    token[e] = floor;
#endif
    mark[e] = 0;
    d_step { gate[e] = s; s = 0 };
#ifndef MUTANT_NAME_FIRST
    name[e] = want;
#endif
bind:
    atomic { lock[me] = e; wants[me] = want; want = 0 };
leave:
    atomic {
      latch = NONE; rebuilt = 0; e = 0; s = 0;
      if
      :: why == 1 -> why = 0
      :: why == 2 -> why = 0
      :: why == 3 || why == 4 -> why = 0; want = 0; goto closed
      fi
    };
opened:
    atomic {
      if
      :: why = 3; goto enter /* close */
      :: why = 2; goto enter /* somebody replaces the storage */
      :: token[lock[me]] < TOKENS && !recovering[lock[me]] ->
        /* the slot protocol: nobody else holds by this gate */
        s = gate[lock[me]];
        if
        :: !ANY(HAS) -> word[me] = s; held[me] = 1; s = 0
        :: else -> s = 0; goto opened
        fi;
        assert(exclusion || !ANY(BESIDE));
        assert(abandoned || mark[lock[me]] == owed[wants[me]])
      fi
    };
    atomic {
      token[lock[me]]++;
      assert(tokens || token[lock[me]] > greatest[wants[me]]);
      greatest[wants[me]] = token[lock[me]]
    };
    /* R1; then the rwlock is touched once more (R2), and the slot refers to nothing (R4) */
    atomic {
      held[me] = 0;
      if :: mark[lock[me]] -> mark[lock[me]] = 0; owed[wants[me]] = 0 :: true fi
    };
    atomic { word[me] = NONE; goto opened };

    /* a change of generation while others hold, or are on their way: they are stragglers then */
replace:
    atomic {
      e = lock[me];
      if :: ANY(HOLDS) -> goto leave :: else fi;
      allocate();
      if :: s == NS -> goto leave :: else initialise() fi;
      pooled[s] = 0;
      recovering[e] = 1
    };
    atomic { old = gate[e]; gate[e] = s; recovering[e] = 0; retired[old] = e; old = 0; reuse_retired(e); goto leave };

close:
    atomic { e = lock[me]; lock[me] = NONE; wants[me] = NONE; if :: !ANY(BOUND) -> reuse_retired(e) :: else fi; goto leave }
  } unless { dead[me] };

  d_step { want = 0; e = 0; s = 0; old = 0; d = 0; why = 0; rebuilt = 0 };
end:
  lock[me] == NONE && latch != me;
  goto start
}

#define KILL(i) \
  :: atomic { kills < KILLS && !dead[i] && (lock[i] != NONE || latch == i) -> kills++; dead[i] = 1; \
       if :: held[i] -> owed[wants[i]] = 1 :: else fi }
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
  d_step {
    do :: i < NS -> pooled[i] = 1; retired[i] = NONE; i++ :: else -> break od;
    i = 0;
    do :: i < ENTRIES -> name[i] = NONE; i++ :: else -> break od;
    i = 0;
    do :: i < NP -> lock[i] = NONE; word[i] = NONE; wants[i] = NONE; i++ :: else -> break od;
    i = 0
  };
  atomic {
    do :: i < NP -> run P(i); i++ :: else -> break od;
    i = 0
  }
}
