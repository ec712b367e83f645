package main

import (
	"bufio"
	"flag"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
)

// front passes connections on as a Service does: each to the next of the servers that the last line of standard input
// names (HOST:PORT, by spaces). Those that stand stay where they are. It ends when standard input does.
func front(arguments []string) error {
	flags := flag.NewFlagSet("front", flag.ExitOnError)
	listen := flags.String("listen", "", "HOST:PORT")
	_ = flags.Parse(arguments)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	var servers atomic.Pointer[[]string]
	servers.Store(&[]string{})
	go func() {
		for number := 0; ; number++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go pass(conn, *servers.Load(), number)
		}
	}()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		named := strings.Fields(lines.Text())
		servers.Store(&named)
	}
	return lines.Err()
}

func pass(conn net.Conn, servers []string, number int) {
	defer conn.Close()
	if len(servers) == 0 {
		return
	}
	server, err := net.Dial("tcp", servers[number%len(servers)])
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, conn)
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(conn, server)
}
