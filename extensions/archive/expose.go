package archive

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxExposed bounds the ports that the EXPOSE of one request may name, the same
// one again included: all there are, of three protocols.
const maxExposed = 3 << 16

// expose is EXPOSE: port[-port][/protocol], of which Docker also takes the form
// that `docker run -p` has, [[ip:]host:]port, and leaves its first parts out.
func (a *applier) expose(specs []string) error {
	for _, spec := range specs {
		// One word can become several, or none.
		ports, err := a.words.split(spec)
		if err != nil {
			return err
		}
		for _, p := range ports {
			first, last, proto, err := parseExposed(p)
			if err != nil {
				return err
			}
			if a.ports += last - first + 1; a.ports > maxExposed {
				return tooLarge("the changes expose more than %d ports", maxExposed)
			}
			for n := first; n <= last; n++ {
				put(&a.c.ExposedPorts, strconv.Itoa(n)+"/"+proto, struct{}{})
			}
		}
	}
	return nil
}

// parseExposed reads one word of EXPOSE (moby:
// daemon/builder/dockerfile/dispatchers.go, parsePortSpec).
func parseExposed(spec string) (first, last int, proto string, err error) {
	parts := strings.Split(spec, ":")
	port, proto, _ := strings.Cut(parts[len(parts)-1], "/")
	if port == "" {
		return 0, 0, "", fmt.Errorf("no port specified: %s<empty>", spec)
	}
	switch proto = strings.ToLower(proto); proto {
	case "tcp", "udp", "sctp":
	case "":
		proto = "tcp"
	default:
		return 0, 0, "", errors.New("invalid proto: " + proto)
	}
	if first, last, err = parsePorts(port); err != nil {
		return 0, 0, "", errors.New("invalid containerPort: " + port)
	}
	if len(parts) > 1 {
		err = checkPublished(parts[:len(parts)-1], last-first)
	}
	return first, last, proto, err
}

// checkPublished checks what stands before a port: a range of the host's must
// be as long as the container's, unless that is one port.
func checkPublished(before []string, more int) error {
	if ip := strings.Join(before[:len(before)-1], ":"); ip != "" {
		if bare, ok := strings.CutPrefix(ip, "["); ok {
			ip = strings.TrimSuffix(bare, "]")
		}
		if _, err := netip.ParseAddr(ip); err != nil {
			return errors.New("invalid IP address: " + ip)
		}
	}
	host := before[len(before)-1]
	if host == "" {
		return nil
	}
	first, last, err := parsePorts(host)
	switch {
	case err != nil:
		return errors.New("invalid hostPort: " + host)
	case more > 0 && last-first != more:
		return errors.New("invalid ranges specified for container and host ports: " + host)
	}
	return nil
}

func parsePorts(s string) (first, last int, err error) {
	from, to, isRange := strings.Cut(s, "-")
	a, err := strconv.ParseUint(from, 10, 16)
	if err != nil || !isRange {
		return int(a), int(a), err
	}
	b, err := strconv.ParseUint(to, 10, 16)
	if err == nil && b < a {
		err = errors.New("the last port is before the first")
	}
	return int(a), int(b), err
}
