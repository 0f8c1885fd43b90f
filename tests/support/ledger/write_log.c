/*
 * LD_PRELOAD shim: logs, in order, what the process does to the files of one folder.
 *
 *   WRITE_LOG_FOLDER  the folder, an absolute path without links
 *   WRITE_LOG         the log, outside of it
 *
 * A record is `struct record`, the file's name within the folder, and the bytes that were written. A sync of the
 * folder itself has an empty name. The real call and its record happen under one lock, so that the order in the log
 * is the order of the effects: what comes after a sync in the log came after it in the process.
 *
 * tests/power_loss.py reads the log.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum kind { WRITE = 1, SYNC = 2, TRUNCATE = 3, UNLINK = 4 };

struct record {
    uint32_t kind;
    uint32_t name_length;
    uint64_t offset; /* of a write; the new size for TRUNCATE */
    uint64_t length; /* of the bytes that follow the name */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static size_t folder_length;
static int log_fd = -1;

__attribute__((constructor)) static void open_log(void) {
    const char *log = getenv("WRITE_LOG");
    folder = getenv("WRITE_LOG_FOLDER");
    if (!log || !folder) return;
    folder_length = strlen(folder);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

/* The part of `path` within the folder; NULL if it is elsewhere. */
static const char *within(const char *path) {
    if (log_fd < 0 || strncmp(path, folder, folder_length) != 0) return NULL;
    if (path[folder_length] == '/') return path + folder_length + 1;
    return path[folder_length] == '\0' ? path + folder_length : NULL;
}

/* The name of an open file within the folder, kept in `path`. */
static const char *name_of(int fd, char path[4096]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    if (length < 0) return NULL;
    path[length] = '\0';
    return within(path);
}

static void put(const void *bytes, size_t length) {
    if (syscall(SYS_write, log_fd, bytes, length) != (long)length) abort(); /* a log with holes proves nothing */
}

static void note(enum kind kind, const char *name, uint64_t offset, const void *bytes, uint64_t length) {
    struct record record = {kind, (uint32_t)strlen(name), offset, length};
    put(&record, sizeof record);
    put(name, record.name_length);
    if (length) put(bytes, length);
}

/* Defines `symbol` with a wrapper that calls the real one under the lock and notes what succeeded. */
#define WRAP(result_type, symbol, parameters, arguments, find_name, is_done, what)             \
    result_type symbol parameters {                                                            \
        static result_type(*real) parameters;                                                  \
        char path[4096];                                                                       \
        if (!real) real = (result_type(*) parameters)dlsym(RTLD_NEXT, #symbol);                \
        const char *name = find_name;                                                          \
        if (!name) return real arguments;                                                      \
        pthread_mutex_lock(&lock);                                                             \
        result_type result = real arguments;                                                   \
        if (is_done) what;                                                                     \
        pthread_mutex_unlock(&lock);                                                           \
        return result;                                                                         \
    }

#define WRAP_PWRITE(symbol)                                                                    \
    WRAP(ssize_t, symbol, (int fd, const void *bytes, size_t count, off_t offset), (fd, bytes, count, offset), \
         name_of(fd, path), result > 0, note(WRITE, name, (uint64_t)offset, bytes, (uint64_t)result))
WRAP_PWRITE(pwrite)
WRAP_PWRITE(pwrite64)

WRAP(ssize_t, write, (int fd, const void *bytes, size_t count), (fd, bytes, count), name_of(fd, path), result > 0,
     note(WRITE, name, (uint64_t)(lseek(fd, 0, SEEK_CUR) - result), bytes, (uint64_t)result))

#define WRAP_SYNC(symbol) \
    WRAP(int, symbol, (int fd), (fd), name_of(fd, path), result == 0, note(SYNC, name, 0, NULL, 0))
WRAP_SYNC(fsync)
WRAP_SYNC(fdatasync)

#define WRAP_TRUNCATE(symbol)                                                                  \
    WRAP(int, symbol, (int fd, off_t size), (fd, size), name_of(fd, path), result == 0,        \
         note(TRUNCATE, name, (uint64_t)size, NULL, 0))
WRAP_TRUNCATE(ftruncate)
WRAP_TRUNCATE(ftruncate64)

WRAP(int, unlink, (const char *file), (file), ((void)path, within(file)), result == 0, note(UNLINK, name, 0, NULL, 0))
