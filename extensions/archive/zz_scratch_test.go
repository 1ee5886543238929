package archive
import ("testing";"os";"encoding/json";"strconv";"errors";"github.com/tarport/tarport")
func TestZZAll(t *testing.T){
 b,_:=os.ReadFile("/tmp/w/all.json"); var list []fixture; if err:=json.Unmarshal(b,&list);err!=nil{t.Fatal(err)}
 reg:=newRegistry(t)
 for i,f:=range list { ns:="team"+strconv.Itoa(i)
  res,err:=reg.load(t,readFile(t,"/work/shared/fixtures",f.File),func(q *LoadRequest){q.Namespace=ns; if f.nameless(){q.Repository="fallback"}})
  if f.refused(){ e,ok:=errors.AsType[*tarport.Error](err); if !ok {t.Errorf("%s: %v",f.File,err)} else {t.Log(f.File,e.Code,e.Message[:60])}; continue}
  if err!=nil {t.Errorf("%s: %v",f.File,err);continue}
  f.checkDocker(t,reg,ns,res); for _,m:=range f.OCI {m.check(t,reg,ns,res)}
  j,_:=json.Marshal(res); if len(os.Getenv("ZV"))>0 {t.Logf("%s %s",f.File,j)}
 }
}
