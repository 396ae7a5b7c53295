/* A disk that fails on command: loaded before libc, it stands between a process and its files.
 *
 * Only files whose path begins with FAULTS_UNDER are touched. FAULTS_CONTROL is a file of 64-bit numbers (struct control)
 * that a test maps and changes while the process runs. FAULTS_LOG, when set, receives every write, sync, truncation and
 * unlinking in order, for a replay of power loss; faults_mark() puts a mark between them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, TRUNCATE = 4, OPEN = 8, UNLINK = 16, MARK = 32 };
enum { FILES = 65536, PATH = 256 };

struct control {
    int64_t fail;      /* which operations fail, a sum of the above */
    int64_t error;     /* with which errno */
    int64_t skip;      /* so many of them succeed first */
    int64_t times;     /* then so many fail; -1 for ever */
    int64_t delay;     /* which operations are delayed */
    int64_t delay_us;  /* by how much */
    int64_t die_at;    /* the process ends before this operation; 0 never */
    int64_t count;     /* operations so far */
    int64_t half;      /* a failing write writes half of it first */
    int64_t log_only;  /* only files whose name ends with -wal fail */
    int64_t pretend;   /* a failing sync does sync first: the worst case of "it may be there" */
};

static struct control *control;
static const char *under;
static int log_fd = -1;
static char paths[FILES][PATH];

static void prepare(void) {
    static int done;
    if (done) return;
    done = 1;
    under = getenv("FAULTS_UNDER");
    const char *name = getenv("FAULTS_CONTROL"), *log_name = getenv("FAULTS_LOG");
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    if (name) {
        int fd = real_open(name, O_RDWR);
        if (fd >= 0) {
            void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (map != MAP_FAILED) control = map;
            close(fd);
        }
    }
    if (log_name) log_fd = real_open(log_name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static const char *watched(const char *path) {
    prepare();
    if (!under || !path || strncmp(path, under, strlen(under))) return NULL;
    size_t length = strlen(path);
    return length > 4 && !strcmp(path + length - 4, "-shm") ? NULL : path;
}

static const char *of(int fd) { return fd >= 0 && fd < FILES && paths[fd][0] ? paths[fd] : NULL; }

static void note(int op, const char *path, int64_t offset, const void *data, uint32_t length) {
    if (log_fd < 0) return;
    ssize_t (*real_write)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    uint16_t name = (uint16_t)strlen(path);
    uint32_t stored = data ? length : 0;
    size_t size = 1 + 2 + name + 8 + 4 + stored;
    char *record = malloc(size), *at = record;
    *at++ = (char)op;
    memcpy(at, &name, 2), at += 2;
    memcpy(at, path, name), at += name;
    memcpy(at, &offset, 8), at += 8;
    memcpy(at, &length, 4), at += 4;
    if (stored) memcpy(at, data, stored);
    if (real_write(log_fd, record, size) != (ssize_t)size) abort();
    free(record);
}

void faults_mark(int64_t number) { prepare(); note(MARK, "", number, NULL, 0); }

/* Returns 1 when the operation is to fail; errno is set. */
static int fails(int op, const char *path) {
    if (!control) return 0;
    int64_t number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    if (control->die_at && number >= control->die_at) _exit(9);
    if (control->delay & op) usleep((useconds_t)control->delay_us);
    if (!(control->fail & op)) return 0;
    if (control->log_only && !strstr(path, "-wal")) return 0;
    if (control->skip > 0) { control->skip--; return 0; }
    if (control->times == 0) return 0;
    if (control->times > 0) control->times--;
    errno = (int)control->error;
    return 1;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)

static ssize_t write_at(int fd, const void *data, size_t size, off64_t offset, ssize_t (*real)(int, const void *, size_t, off64_t)) {
    const char *path = of(fd);
    if (!path) return real(fd, data, size, offset);
    if (fails(WRITE, path)) {
        int error = errno;
        if (control->half && size > 1) {
            ssize_t done = real(fd, data, size / 2, offset);
            if (done > 0) { note(WRITE, path, offset, data, (uint32_t)done); return done; }
        }
        errno = error;
        return -1;
    }
    ssize_t done = real(fd, data, size, offset);
    if (done > 0) note(WRITE, path, offset, data, (uint32_t)done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return write_at(fd, data, size, offset, real);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return write_at(fd, data, size, offset, real);
}

static int sync_of(int fd, int (*real)(int)) {
    const char *path = of(fd);
    if (!path) return real(fd);
    if (fails(SYNC, path)) {
        int error = errno;
        if (control->pretend) real(fd);
        errno = error;
        return -1;
    }
    int done = real(fd);
    if (!done) note(SYNC, path, 0, NULL, 0);
    return done;
}

int fsync(int fd) { REAL(int, "fsync", int); return sync_of(fd, real); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); return sync_of(fd, real); }

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    const char *path = of(fd);
    if (path && fails(TRUNCATE, path)) return -1;
    int done = real(fd, size);
    if (path && !done) note(TRUNCATE, path, size, NULL, 0);
    return done;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int open_it(const char *path, int flags, mode_t mode) {
    REAL(int, "open64", const char *, int, ...);
    const char *ours = watched(path);
    if (ours && (flags & (O_CREAT | O_WRONLY | O_RDWR)) && fails(OPEN, path)) return -1;
    int fd = real(path, flags, mode);
    if (fd >= 0 && fd < FILES) {
        paths[fd][0] = 0;
        if (ours && strlen(ours) < PATH) strcpy(paths[fd], ours);
    }
    return fd;
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_it(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_it(path, flags, mode);
}

int close(int fd) {
    REAL(int, "close", int);
    if (fd >= 0 && fd < FILES) paths[fd][0] = 0;
    return real(fd);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    const char *ours = watched(path);
    if (ours && fails(UNLINK, path)) return -1;
    int done = real(path);
    if (ours && !done) note(UNLINK, path, 0, NULL, 0);
    return done;
}
