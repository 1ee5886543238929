package archive

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tarport/tarport"
)

// engineAnswer is what an engine answered, and the config that it wrote.
type engineAnswer struct {
	Status       int             `json:"http_status"`
	Error        string          `json:"error"`
	Config       json.RawMessage `json:"config"`
	OS           string          `json:"os"`
	Architecture string          `json:"architecture"`
	Variant      string          `json:"variant"`
	Comment      string          `json:"comment"`
}

// changesFixture is what engines 20.10 and 29 did with --change.
type changesFixture struct {
	Import []struct {
		Changes []string
		Old     engineAnswer `json:"docker_20_10"`
		New     engineAnswer `json:"docker_29"`
	}
	Options []struct {
		Query map[string]string
		New   engineAnswer `json:"docker_29"`
	} `json:"import_options"`
	Commit []struct {
		Changes   []string
		Base      string          `json:"base_image"`
		Container json.RawMessage `json:"container_config"`
		Old       engineAnswer    `json:"docker_20_10"`
	}
}

func readChanges(tb testing.TB) changesFixture {
	tb.Helper()
	var f changesFixture
	if err := json.Unmarshal(readFile(tb, "testdata", "import/changes.json"), &f); err != nil {
		tb.Fatal(err)
	}
	if len(f.Import) != 89 || len(f.Options) != 14 || len(f.Commit) != 32 {
		tb.Fatalf("%d, %d and %d cases, want all of them", len(f.Import), len(f.Options), len(f.Commit))
	}
	return f
}

// oldAndNew are the cases in which the engines differ, other than in the case
// of a letter: each is done as 29 does it. docs/import.md lists them.
var oldAndNew = map[string]string{
	"WORKDIR /a/../b":                       "cleaned: /b",
	"HEALTHCHECK --start-interval=5s CMD x": "taken",
	"STOPSIGNAL 9":                          "taken",
	"STOPSIGNAL BOGUS":                      "refused as a signal, not as an instruction",
	"ENV A=${unterminated":                  "other words",
}

func TestImportChangesOfRealEngines(t *testing.T) {
	t.Parallel()
	differ := map[string]bool{}
	for _, c := range readChanges(t).Import {
		name := strings.Join(c.Changes, " | ")
		if c.Old.Status != c.New.Status || !strings.EqualFold(c.Old.Error, c.New.Error) || cmp.Diff(decoded(t, c.Old.Config), decoded(t, c.New.Config)) != "" {
			differ[name] = true
		}
		got, err := applyChanges(runConfig{}, c.Changes, "linux")
		checkAnswer(t, name, c.New, got, err)
	}
	want := map[string]bool{}
	for name := range oldAndNew {
		want[name] = true
	}
	if diff := cmp.Diff(want, differ); diff != "" {
		t.Errorf("cases in which engines differ (-want +got):\n%s", diff)
	}
}

func TestCommitChangesOfRealEngines(t *testing.T) {
	t.Parallel()
	for _, c := range readChanges(t).Commit {
		container, err := parseRunConfig(c.Container)
		if err != nil {
			t.Fatal(err)
		}
		got, err := commitChanges(container, c.Changes, "linux")
		checkAnswer(t, c.Base+": "+strings.Join(c.Changes, " | "), c.Old, got, err)
		if again := mustJSON(t, container); cmp.Diff(decoded(t, c.Container), decoded(t, again)) != "" {
			t.Errorf("%v changed the container's config: %s", c.Changes, again)
		}
	}
}

// checkAnswer compares with what an engine did.
func checkAnswer(t *testing.T, name string, want engineAnswer, got runConfig, err error) {
	t.Helper()
	if want.Status >= 400 {
		message := strings.ReplaceAll(want.Error, "is not a valid change command", "") // 20.10 lowers the instruction's case
		if tarport.ErrorCode(err) != tarport.Invalid || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(message)) {
			t.Errorf("%q = %v, want INVALID with %q", name, err, want.Error)
		}
		return
	}
	if err != nil {
		t.Errorf("%q = %v, want %s", name, err, want.Config)
		return
	}
	if diff := cmp.Diff(decoded(t, want.Config), decoded(t, mustJSON(t, got))); diff != "" {
		t.Errorf("%q (-engine +got):\n%s", name, diff)
	}
}

func mustJSON(tb testing.TB, v any) []byte {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// decoded is a JSON object; an empty one where there is none.
func decoded(tb testing.TB, b []byte) map[string]any {
	tb.Helper()
	out := map[string]any{}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &out); err != nil {
			tb.Fatalf("%s: %v", b, err)
		}
	}
	return out
}

// TestChanges has what the engines' cases leave out.
func TestChanges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, config string
		changes      []string
		system, want string
	}{
		{"two instructions in one change", `{}`, []string{"CMD [\"a\"]\nENV B=2"}, "linux", `{"Env":["B=2"],"Cmd":["a"]}`},
		{"no changes", `{"Cmd":["x"],"Shell":["/s"]}`, nil, "linux", `{"Cmd":["x"],"Shell":["/s"]}`},
		{"the config's shell", `{"Shell":["/bin/bash","-ec"]}`, []string{"CMD a b"}, "linux", `{"Cmd":["/bin/bash","-ec","a b"],"Shell":["/bin/bash","-ec"]}`},
		{"another system's shell", `{}`, []string{"ENTRYPOINT a b"}, "windows", `{"Entrypoint":["cmd","/S","/C","a b"]}`},
		{"ENTRYPOINT takes the command away", `{"Cmd":["x"]}`, []string{`ENTRYPOINT ["e"]`}, "linux", `{"Entrypoint":["e"]}`},
		{"ENTRYPOINT leaves a command of the same changes", `{"Cmd":["x"]}`, []string{`CMD ["c"]`, `ENTRYPOINT ["e"]`}, "linux", `{"Entrypoint":["e"],"Cmd":["c"]}`},
		{"variables of the config, and of earlier changes", `{"Env":["A=1","P=/bin","A2=x"]}`, []string{"ENV P=/opt:$P", "ENV Q=$P"}, "linux", `{"Env":["A=1","P=/opt:/bin","A2=x","Q=/opt:/bin"]}`},
		{"one ENV sees the variables before it", `{"Env":["A=old"]}`, []string{"ENV A=new B=$A"}, "linux", `{"Env":["A=new","B=old"]}`},
		{"patterns", `{"Env":["V=a.b.c"]}`, []string{"ENV X=${V#*.} Y=${V%%.*} Z=${V//./-}"}, "linux", `{"Env":["V=a.b.c","X=b.c","Y=a","Z=a-b-c"]}`},
		{"ports", `{}`, []string{"EXPOSE 443/TCP 80:81 127.0.0.1:1:82"}, "linux", `{"ExposedPorts":{"443/tcp":{},"81/tcp":{},"82/tcp":{}}}`},
		{"odd ports", `{}`, []string{"EXPOSE [::1]:1:83 9000-9001:84 0/sctp 5-5"}, "linux", `{"ExposedPorts":{"83/tcp":{},"84/tcp":{},"0/sctp":{},"5/tcp":{}}}`},
		{"a port variable of several words", `{"Env":["P=80 443/udp"]}`, []string{"EXPOSE $P"}, "linux", `{"ExposedPorts":{"80/tcp":{},"443/udp":{}},"Env":["P=80 443/udp"]}`},
		{"a relative WORKDIR of a relative one", `{"WorkingDir":"a"}`, []string{"WORKDIR b/../c/"}, "linux", `{"WorkingDir":"/a/c"}`},
		{"signals", `{}`, []string{"STOPSIGNAL sigrtmin+3"}, "linux", `{"StopSignal":"sigrtmin+3"}`},
		{"keys that nobody knows", `{"MacAddress":"x","Cmd":["a"],"Zeta":{"deep":[1]}}`, []string{"USER u"}, "linux", `{"User":"u","Cmd":["a"],"MacAddress":"x","Zeta":{"deep":[1]}}`},
		{"nothing but keys that nobody knows", `{"Zeta":1}`, []string{"CMD []"}, "linux", `{"Zeta":1}`},
		{"comments and blank lines", `{}`, []string{"# a", "", "   ", "user u # not one"}, "linux", `{"User":"u # not one"}`},
		{"an empty label", `{"Labels":{"a":"1"}}`, []string{`LABEL a=`}, "linux", `{"Labels":{"a":""}}`},
		{"triggers are added", `{"OnBuild":["RUN a"]}`, []string{"ONBUILD RUN b"}, "linux", `{"OnBuild":["RUN a","RUN b"]}`},
	} {
		config, err := parseRunConfig([]byte(c.config))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got, err := applyChanges(config, c.changes, c.system)
		if err != nil {
			t.Errorf("%s: applyChanges(%s, %q) = %v", c.name, c.config, c.changes, err)
			continue
		}
		if diff := cmp.Diff(decoded(t, []byte(c.want)), decoded(t, mustJSON(t, got))); diff != "" {
			t.Errorf("%s: applyChanges(%s, %q) (-want +got):\n%s", c.name, c.config, c.changes, diff)
		}
		if diff := cmp.Diff(decoded(t, []byte(c.config)), decoded(t, mustJSON(t, config))); diff != "" {
			t.Errorf("%s: the config that was given is changed (-before +after):\n%s", c.name, diff)
		}
	}
}

func TestBadChanges(t *testing.T) {
	t.Parallel()
	for change, want := range map[string]string{
		"EXPOSE 2-1":                    "containerPort",
		"EXPOSE 1-2:3-5":                "invalid ranges",
		"EXPOSE 1-3:4-5":                "invalid ranges",
		"EXPOSE a:80":                   "hostPort",
		"EXPOSE nowhere:1:80":           "IP address",
		"EXPOSE /tcp":                   "no port",
		"EXPOSE -1":                     "containerPort",
		"STOPSIGNAL 0":                  "invalid signal",
		"STOPSIGNAL RTMIN+16":           "invalid signal",
		"STOPSIGNAL A B":                "invalid signal: A B",
		"WORKDIR $NONE":                 "normalize",
		"SHELL [\"/x\"]":                "not a valid change command",
		"ONBUILD ONBUILD RUN x":         "ONBUILD",
		"LABEL a":                       "two arguments",
		"# only a comment":              "no instructions",
		"CMD a\x00b":                    "UTF-8",
		"CMD \xff":                      "UTF-8",
		"HEALTHCHECK --retries=x CMD y": "invalid syntax",
		"ENV A=\"${B:?is needed}\"":     "is needed",
		"FROM \x1b[31mred":              "FROM",
	} {
		_, err := applyChanges(runConfig{}, []string{change}, "linux")
		e, ok := errors.AsType[*tarport.Error](err)
		if !ok || e.Code != tarport.Invalid || !strings.Contains(e.Message, want) || strings.ContainsAny(e.Message, "\x1b\x00\n") {
			t.Errorf("applyChanges(%q) = %v, want INVALID about %q", change, err, want)
		}
	}
	if _, err := applyChanges(runConfig{}, []string{`STOPSIGNAL TERM`}, "windows"); tarport.ErrorCode(err) != tarport.Invalid {
		t.Errorf("STOPSIGNAL on windows = %v, want INVALID", err)
	}
}

// TestChangesThatGrow are short and stand for very much.
func TestChangesThatGrow(t *testing.T) {
	t.Parallel()
	nested := strings.Repeat("${A:-", 10_000) + strings.Repeat("}", 10_000)
	for name, c := range map[string]struct {
		env     []string
		changes []string
		code    tarport.Code // "": it is taken
	}{
		"doubled":              {nil, append([]string{"ENV A=0123456789"}, repeated("ENV A=$A$A", 100)...), tarport.TooLarge},
		"many references":      {[]string{"A=" + strings.Repeat("x", 100_000)}, []string{"ENV B=" + strings.Repeat("$A", 1000)}, tarport.TooLarge},
		"replaced":             {[]string{"A=" + strings.Repeat("x", 10_000)}, []string{"ENV B=${A//?/" + strings.Repeat("y", 10_000) + "}"}, tarport.TooLarge},
		"replaced, nested":     {[]string{"A=" + strings.Repeat("x", 300)}, []string{"ENV B=${A//?/${A//?/${A//?/x}}}"}, tarport.TooLarge},
		"a long pattern":       {[]string{"A=" + strings.Repeat("x", 10_000)}, []string{"ENV B=${A##" + strings.Repeat("*?", 10_000) + "}"}, tarport.TooLarge},
		"ports":                {nil, repeated("EXPOSE 0-65535/tcp", 3000), tarport.TooLarge},
		"all ports":            {nil, []string{"EXPOSE 0-65535 0-65535/udp 0-65535/sctp"}, tarport.TooLarge}, // of the config
		"many ports":           {nil, []string{"EXPOSE 1-65535"}, ""},
		"long":                 {nil, []string{"LABEL a=" + strings.Repeat("x", maxChanges)}, tarport.TooLarge},
		"deep":                 {nil, []string{"ENV B=" + nested}, ""},
		"many instructions":    {repeated("A=1", 1000), repeated("ENV A=1", 5000), ""},
		"many variables":       {nil, []string{"ENV" + strings.Repeat(" a=1", 15_000)}, ""},
		"nested triggers":      {nil, []string{strings.Repeat("ONBUILD ", 8000)}, tarport.Invalid},
		"a long list":          {nil, []string{"CMD [" + strings.Repeat(`"a",`, 15_000) + `"b"]`}, ""},
		"quotes":               {nil, []string{"LABEL a=" + strings.Repeat(`"b"`, 20_000)}, ""},
		"continued":            {nil, []string{"CMD a" + strings.Repeat("\\\n", 30_000)}, ""},
		"flags":                {nil, []string{"HEALTHCHECK " + strings.Repeat("--interval=1s ", 4000) + "CMD x"}, tarport.Invalid},
		"a config that is big": {[]string{"A=" + strings.Repeat("x", maxRunConfig)}, []string{"CMD x"}, tarport.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var config runConfig
			config.Env = c.env
			began := time.Now()
			_, err := applyChanges(config, c.changes, "linux")
			t.Logf("%s took %s", name, time.Since(began))
			if got := tarport.ErrorCode(err); got != c.code {
				t.Errorf("applyChanges = %.200v, want %q", err, c.code)
			}
		})
	}
}

func repeated(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func TestRunConfigThatIsNone(t *testing.T) {
	t.Parallel()
	for _, s := range []string{`[]`, `{"Cmd":"x"}`, `{"cmd":["x"]}`, `{"Cmd":[],"Cmd":["x"]}`, `{"Env":[1]}`, `{`, `{} {}`} {
		if _, err := parseRunConfig([]byte(s)); err == nil {
			t.Errorf("parseRunConfig(%s) = nil, want an error", s)
		}
	}
	for _, s := range []string{``, `null`, `{}`, `{"Cmd":null}`} {
		if c, err := parseRunConfig([]byte(s)); err != nil || string(mustJSON(t, c)) != `{}` {
			t.Errorf("parseRunConfig(%s) = %s, %v, want an empty one", s, mustJSON(t, c), err)
		}
	}
}

// TestContainerOfAnImage: ONBUILD and SHELL are the image's and not the
// container's (seen with docker 20.10).
func TestContainerOfAnImage(t *testing.T) {
	t.Parallel()
	image, err := parseRunConfig([]byte(`{"Cmd":["a"],"OnBuild":["RUN x"],"Shell":["/s"],"Zeta":1}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := commitChanges(image.container(), []string{"CMD shell form", "ONBUILD RUN y"}, "linux")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Cmd":["/bin/sh","-c","shell form"],"OnBuild":["RUN y"],"Zeta":1}`
	if s := string(mustJSON(t, got)); s != want {
		t.Errorf("commit = %s, want %s", s, want)
	}
}

// FuzzChanges: whatever is sent, there is a config that encodes, within its
// bounds, or an error that the sender can read.
func FuzzChanges(f *testing.F) {
	for _, c := range readChanges(f).Import {
		f.Add(strings.Join(c.Changes, "\n"))
	}
	f.Add("ENV A=$A$A\nENV B=${A//?/$A}\nEXPOSE 1-65535 $A")
	config, err := parseRunConfig([]byte(`{"Env":["PATH=/bin","A=a.b"],"Cmd":["x"],"Healthcheck":{"Test":["CMD","y"],"Retries":3},"Zeta":1}`))
	if err != nil {
		f.Fatal(err)
	}
	before := string(mustJSON(f, config))
	f.Fuzz(func(t *testing.T, changes string) {
		got, err := commitChanges(config, []string{changes}, "linux")
		if after := string(mustJSON(t, config)); after != before {
			t.Fatalf("%q changed the config that it was given: %s", changes, after)
		}
		if err != nil {
			if e, ok := errors.AsType[*tarport.Error](err); !ok || e.Code.Status() >= 500 || len(e.Message) > 1000 {
				t.Errorf("commitChanges(%q) = %v, want an error for the sender", changes, err)
			}
			return
		}
		b := mustJSON(t, got)
		again, err := parseRunConfig(b)
		if err != nil || len(b) > 2*maxRunConfig {
			t.Fatalf("commitChanges(%q) = %.1000s: %v", changes, b, err)
		}
		if diff := cmp.Diff(string(b), string(mustJSON(t, again))); diff != "" {
			t.Errorf("commitChanges(%q) does not come back:\n%s", changes, diff)
		}
	})
}
