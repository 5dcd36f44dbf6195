# To build the native part from the published sources, in the package's folder, with node-addon-api installed beside it:
#
#   echo '{ "includes": ["proclock.gypi"] }' > binding.gyp && npx node-gyp rebuild
{
  "variables": {
    # Set on the command line of `node-gyp configure`, e.g. --native_tests=true. All are off for users.
    "native_tests%": "false",
    "bench%": "false",
    # "true" under CI only: a new compiler's new warning must not stop a user's build.
    "warnings_as_errors%": "false",
    "address_sanitizer%": "false",
    "thread_sanitizer%": "false",
    "coverage%": "false",
    # That for macOS, compiled for Linux, with test/darwin/ in place of the other kernel.
    "portable%": "false"
  },

  "target_defaults": {
    # Node's own common.gypi decides about a standard, an optimisation level and LTO for every addon, differently in
    # each major version. Ours are the same for all of them.
    "cflags_cc/": [["exclude", "^-std="], ["include", "^-std=c\\+\\+17$"]],
    "cflags/": [["exclude", "^-O3$"], ["exclude", "-flto"]],
    "ldflags/": [["exclude", "-flto"]],
    # Of debug information, the lines alone: with variables a build takes a third longer.
    "cflags": ["-g1", "-Wall", "-Wextra", "-fvisibility=hidden"],
    "cflags_cc": ["-std=c++17", "-fno-exceptions", "-fno-rtti"],
    "xcode_settings": {
      "CLANG_CXX_LANGUAGE_STANDARD": "c++17",
      "GCC_ENABLE_CPP_EXCEPTIONS": "NO",
      "GCC_ENABLE_CPP_RTTI": "NO",
      "GCC_SYMBOLS_PRIVATE_EXTERN": "YES",
      "MACOSX_DEPLOYMENT_TARGET": "11.0",
      "WARNING_CFLAGS": ["-Wall", "-Wextra"]
    },
    "conditions": [
      ["warnings_as_errors == 'true'", {
        "cflags": ["-Werror"]
      }],
      ["address_sanitizer == 'true'", {
        # vptr checks need RTTI.
        "cflags": [
          "-O1", "-fno-omit-frame-pointer",
          "-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=undefined"
        ],
        "ldflags": ["-fsanitize=address,undefined"]
      }],
      ["thread_sanitizer == 'true'", {
        # It does not see fences. Ours order atomics with each other (protocol.h), no plain memory.
        "cflags": ["-O1", "-fno-omit-frame-pointer", "-fsanitize=thread", "-Wno-tsan"],
        "ldflags": ["-fsanitize=thread"]
      }],
      ["coverage == 'true'", {
        # Counts of several processes and threads add up in one file.
        "defines": ["PROCLOCK_COVERAGE"],
        "cflags": ["-O0", "--coverage", "-fprofile-update=atomic"],
        "ldflags": ["--coverage"]
      }],
      ["portable == 'true'", {
        "defines": ["PROCLOCK_PORTABLE"],
        "cflags": ["-isystem", "<(module_root_dir)/test/darwin", "-include", "<(module_root_dir)/test/darwin/darwin.h"]
      }],
      ["address_sanitizer != 'true' and thread_sanitizer != 'true' and coverage != 'true'", {
        "cflags": ["-O2"]
      }]
    ]
  },

  "targets": [
    {
      "target_name": "proclock_core",
      "type": "static_library",
      "sources": [
        # Each system's own are empty for the other one.
        "native/platform/children.cc",
        "native/platform/core.cc",
        "native/platform/memory.cc",
        "native/platform/unix.cc",
        "native/platform/watcher.cc",
        "native/platform/darwin/children.cc",
        "native/platform/darwin/file.cc",
        "native/platform/darwin/platform.cc",
        "native/platform/darwin/watcher.cc",
        "native/platform/linux/children.cc",
        "native/platform/linux/file.cc",
        "native/platform/linux/platform.cc",
        "native/platform/linux/watcher.cc",
        "native/runtime/process.cc"
      ],
      # node-gyp gives every target Node's headers. The core gets none, so that N-API cannot creep into it.
      "include_dirs/": [["exclude", ".*"]],
      "cflags!": ["-Wno-unused-parameter"],
      "conditions": [
        ["portable == 'true'", { "sources": ["test/darwin/kqueue.cc", "test/darwin/shim.cc"] }]
      ]
    },
    {
      "target_name": "proclock",
      "type": "loadable_module",
      "dependencies": ["proclock_core"],
      "sources": ["native/addon.cc"],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=8", "NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS",
        # In a worker that is being terminated no exception can be thrown, and none needs to be.
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"],
      "conditions": [
        ["OS == 'linux'", {
          "ldflags": [
            "-pthread",
            # Node unmaps an addon that only worker threads loaded, under our native threads.
            "-Wl,-z,nodelete",
            "-Wl,-z,relro,-z,now",
            # A statically linked C++ runtime would otherwise export its symbols and be mixed up with the host's.
            "-Wl,--version-script=<(module_root_dir)/native/exports.map"
          ],
          # shm_open lives there before glibc 2.34.
          "libraries": ["-lrt"]
        }]
      ]
    }
  ],

  "conditions": [
    ["native_tests == 'true'", {
      "targets": [
        {
          "target_name": "proclock_test",
          "type": "executable",
          "dependencies": ["proclock_core"],
          "sources": ["<!@(node -p \"require('fs').readdirSync('test/native').filter(f => f.endsWith('.cc')).sort().map(f => 'test/native/' + f).join(' ')\")"],
          "include_dirs/": [["exclude", ".*"]],
          "cflags!": ["-Wno-unused-parameter"],
          "actions": [
            {
              # A copy of the core that can be broken on purpose, for sim_mutants_test.cc.
              "action_name": "mutants",
              "inputs": [
                "test/native/mutants.mjs",
                "test/native/runtime-mutants.mjs",
                "native/model/mutants.json",
                "<!@(node -p \"['core', 'runtime'].flatMap(d => require('fs').readdirSync('native/' + d).map(f => 'native/' + d + '/' + f)).join(' ')\")"
              ],
              "outputs": ["build/mutants/core/core.h", "build/mutants/mutant.h"],
              "action": ["node", "test/native/mutants.mjs"]
            }
          ],
          "conditions": [
            # Those in which threads of one process meet. Others simulate memory and threads, of which ThreadSanitizer has a picture
            # of its own.
            ["thread_sanitizer == 'true'", {
              "sources/": [["exclude", "_test[.]cc$"], ["include", "/(client|rwlock_word|stress)_test[.]cc$"]]
            }],
            ["coverage == 'true'", {
              "sources/": [["exclude", "/sim_"]]
            }],
            # One of them is enough to see that the core, and the simulation, stay within their memory.
            ["address_sanitizer == 'true'", {
              "sources/": [["exclude", "/sim_(exhaustive|mutants|orders|two_deaths)"]]
            }],
            # Those that measure, or look for faults put in on purpose, or simulate all but the rwlock: nothing in them is a system's.
            ["portable == 'true'", {
              "sources/": [["exclude", "/(scale|sim_(mutants|orders|runtime|two_deaths))"]]
            }],
            ["OS == 'linux'", {
              # test/native/interpose.h
              "ldflags": ["-pthread", "-Wl,--wrap=syscall"],
              "libraries": ["-lrt"]
            }]
          ]
        },
        {
          # The addon once more, from a copy of its sources in which test/crash-points.test.ts has processes die.
          "target_name": "proclock_crash",
          "type": "loadable_module",
          "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
          "defines": ["NAPI_VERSION=8", "NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS"],
          "cflags": ["-O0"],
          # Made by test/native/crash-points.mjs, before make looks for them.
          "sources": [
            "<!@(node -p \"require('fs').readdirSync('native', { recursive: true }).filter(f => /[.]cc$/.test(f)).map(f => 'build/crash/native/' + f).join(' ')\")"
          ],
          "conditions": [
            ["portable == 'true'", { "sources": ["test/darwin/kqueue.cc", "test/darwin/shim.cc"] }],
            ["OS == 'linux'", { "ldflags": ["-pthread", "-Wl,-z,nodelete"], "libraries": ["-lrt"] }]
          ]
        }
      ]
    }],
    ["bench == 'true'", {
      "targets": [
        {
          "target_name": "proclock_bench",
          "type": "loadable_module",
          "sources": ["scripts/bench/probe.cc"],
          "defines": ["NAPI_VERSION=8"],
          "conditions": [
            ["OS == 'linux'", { "ldflags": ["-pthread"], "libraries": ["-lrt"] }]
          ]
        },
        {
          "target_name": "proclock_bench_processes",
          "type": "executable",
          "dependencies": ["proclock_core"],
          "sources": ["scripts/bench/processes.cc"],
          "include_dirs/": [["exclude", ".*"]],
          "cflags!": ["-Wno-unused-parameter"],
          "conditions": [
            ["OS == 'linux'", { "ldflags": ["-pthread"], "libraries": ["-lrt"] }]
          ]
        }
      ]
    }]
  ]
}
