/* The floor under every fan-out: accept, answer each handshake with fixed bytes, then send() one frame to all, in a loop.
 *
 *     send_floor FRAME_FILE     prints its port; each line on standard input makes it send the frame to every socket
 *
 * Any server that sends a message over N sockets with send() costs at least this. It understands nothing that a client
 * says, so it answers no ping; the bench's viewers send none. It skips a socket that is full.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SOCKETS_MAX = 1 << 20, FRAME_BYTES_MAX = 1 << 16, BACKLOG = 4096 };

static const char ANSWER[] =
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n";
static int sockets[SOCKETS_MAX];
static char frame[FRAME_BYTES_MAX];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Make the frame of a text of 126 to 65,531 bytes (RFC 6455, 5.2); gives its length. */
static size_t read_frame(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    size_t length = fread(frame + 4, 1, sizeof frame - 4, file);
    fclose(file);
    if (length < 126 || length >= sizeof frame - 4) fail("a text of this length is not sent here");
    frame[0] = (char)0x81;
    frame[1] = 126;
    frame[2] = (char)(length >> 8);
    frame[3] = (char)length;
    return length + 4;
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

int main(int count, char **arguments) {
    if (count != 2) return 2;
    size_t length = read_frame(arguments[1]), viewers = 0;
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
            for (size_t i = 0; i < viewers; i++)
                if (send(sockets[i], frame, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
                    fail("send");
        }
    }
}
