import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import software.amazon.event.ruler.JsonRuleCompiler;
import software.amazon.event.ruler.Machine;
import software.amazon.event.ruler.Patterns;

/**
 * The judge: Amazon's own engine, asked as tests/filter/filter_pairs.c asks ours. Reads lines "pattern TAB event", answers each with
 * true, false, "refused: why" (the pattern) or "error: why" (the event). java -cp 'jars/*' Reference.java
 */
public final class Reference {
    private static String answer(String pattern, String event) {
        // check() is the language as documented; addRule() falls back to an older one, in which "$or" is the name of a field.
        String fault = JsonRuleCompiler.check(pattern);
        Machine one = new Machine();
        if (fault != null) {
            return pattern.contains("or") ? fallback(one, pattern, event, fault) : "refused: " + fault;
        }
        Machine apart = new Machine();
        int number = 0;
        try {
            one.addRule("rule", pattern);
            for (Map<String, List<Patterns>> rule : JsonRuleCompiler.compile(pattern)) {
                apart.addPatternRule("rule " + number++, rule);
            }
        } catch (Exception e) {
            return "refused: " + e;
        }
        try {
            // Of the combinations that $or makes, addRule() loses some that overlap with an earlier one of the same name. That both ways
            // can differ is said, so that the test can tell it from other differences.
            boolean matches = !apart.rulesForJSONEvent(event).isEmpty();
            boolean byOneName = !one.rulesForJSONEvent(event).isEmpty();
            return matches + (matches != byOneName ? ": by one name " + byOneName : "");
        } catch (Exception e) {
            return "error: " + e;
        }
    }

    private static String fallback(Machine one, String pattern, String event, String fault) {
        try {
            one.addRule("rule", pattern);
        } catch (Exception e) {
            return "refused: " + fault;
        }
        try {
            return "" + !one.rulesForJSONEvent(event).isEmpty();
        } catch (Exception e) {
            return "error: " + e;
        }
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, "UTF-8");
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            int tab = line.indexOf('\t');
            out.println(answer(line.substring(0, tab), line.substring(tab + 1)).replaceAll("[\\r\\n].*", ""));
        }
        out.flush();
    }
}
