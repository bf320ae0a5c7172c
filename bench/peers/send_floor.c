/* The floor under every fan-out: accept, answer each handshake with fixed bytes, then send one frame to all, in a loop.
 *
 *     send_floor FRAME_FILE     prints its port; each line on standard input makes it send the frame to every socket
 *
 *     send     with a send() for each socket
 *     ring     with an io_uring_enter() for RING_SOCKETS of them, as server/live/ring.py does
 *
 * Any server that sends a message over N sockets costs at least this. It understands nothing that a client says, so it
 * answers no ping; the bench's viewers send none. It skips a socket that is full.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SOCKETS_MAX = 1 << 20, FRAME_BYTES_MAX = 1 << 16, BACKLOG = 4096, RING_SOCKETS = 512 };
enum { SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL };
enum { RING_FLAGS = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN };

static const char ANSWER[] =
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n";
static int sockets[SOCKETS_MAX];
static char frame[FRAME_BYTES_MAX];
static size_t length, viewers;

static struct {
    int file;
    unsigned *tail, *done, *given;
    struct io_uring_sqe *requests;
    struct io_uring_cqe *results;
} ring;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Make the frame of a text of 126 to 65,531 bytes (RFC 6455, 5.2). */
static void read_frame(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    length = fread(frame + 4, 1, sizeof frame - 4, file);
    fclose(file);
    if (length < 126 || length >= sizeof frame - 4) fail("a text of this length is not sent here");
    frame[0] = (char)0x81;
    frame[1] = 126;
    frame[2] = (char)(length >> 8);
    frame[3] = (char)length;
    length += 4;
}

static int open_listener(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, BACKLOG)) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

/* The head of a handshake comes right behind the connection, so to wait for it here holds nobody up for long. */
static int accept_viewer(int listener) {
    char head[4096];
    int viewer = accept(listener, NULL, NULL), one = 1;
    if (viewer < 0) fail("accept");
    setsockopt(viewer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (read(viewer, head, sizeof head) <= 0 || write(viewer, ANSWER, sizeof ANSWER - 1) < 0) {
        close(viewer);
        return -1;
    }
    return viewer;
}

static void send_all(void) {
    for (size_t i = 0; i < viewers; i++)
        if (send(sockets[i], frame, length, SEND_FLAGS) < 0 && errno != EAGAIN) fail("send");
}

static char *shared(size_t size, off_t offset) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.file, offset);
    if (memory == MAP_FAILED) fail("mmap");
    return memory;
}

static void open_ring(void) {
    struct io_uring_params made = {.flags = RING_FLAGS};
    ring.file = (int)syscall(SYS_io_uring_setup, RING_SOCKETS, &made);
    if (ring.file < 0) fail("io_uring_setup");
    char *requests = shared(made.sq_off.array + made.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    char *results = shared(made.cq_off.cqes + made.cq_entries * sizeof *ring.results, IORING_OFF_CQ_RING);
    ring.requests = (void *)shared(made.sq_entries * sizeof *ring.requests, IORING_OFF_SQES);
    ring.tail = (void *)(requests + made.sq_off.tail);
    ring.done = (void *)(results + made.cq_off.head);
    ring.given = (void *)(results + made.cq_off.tail);
    ring.results = (void *)(results + made.cq_off.cqes);
    for (unsigned i = 0; i < RING_SOCKETS; i++) ((unsigned *)(requests + made.sq_off.array))[i] = i;
}

/* The kernel ends each request before it returns, so the results can be taken as soon as all were given. */
static void ring_all(void) {
    if (!ring.file) open_ring();
    for (size_t start = 0; start < viewers; start += RING_SOCKETS) {
        unsigned count = viewers - start < RING_SOCKETS ? (unsigned)(viewers - start) : RING_SOCKETS;
        for (unsigned i = 0; i < count; i++) {
            struct io_uring_sqe request = {.opcode = IORING_OP_SEND, .flags = IOSQE_CQE_SKIP_SUCCESS};
            request.fd = sockets[start + i];
            request.addr = (unsigned long)frame;
            request.len = (unsigned)length;
            request.msg_flags = SEND_FLAGS | MSG_WAITALL;
            ring.requests[(*ring.tail + i) % RING_SOCKETS] = request;
        }
        __atomic_store_n(ring.tail, *ring.tail + count, __ATOMIC_RELEASE);
        if (syscall(SYS_io_uring_enter, ring.file, count, 0, IORING_ENTER_GETEVENTS, NULL, 0) != count) fail("enter");
        for (; *ring.done != __atomic_load_n(ring.given, __ATOMIC_ACQUIRE); ++*ring.done) {
            int taken = ring.results[*ring.done % (2 * RING_SOCKETS)].res;
            errno = -taken;
            if (taken < 0 && taken != -EAGAIN) fail("send");
        }
    }
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    read_frame(arguments[1]);
    struct pollfd waits[2] = {{.fd = 0, .events = POLLIN}, {.fd = open_listener(), .events = POLLIN}};
    for (;;) {
        char word[64];
        if (poll(waits, 2, -1) < 0) fail("poll");
        if (waits[1].revents) {
            int viewer = accept_viewer(waits[1].fd);
            if (viewer >= 0 && viewers < SOCKETS_MAX) sockets[viewers++] = viewer;
        }
        if (waits[0].revents) {
            if (read(0, word, sizeof word) <= 0) return 0;
            if (word[0] == 'r')
                ring_all();
            else
                send_all();
        }
    }
}
